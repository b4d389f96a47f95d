//! Values that file and variables share. Each error describes the problem and a valid value, and never shows a secret.

use super::model::OtlpProtocol;

pub(super) fn protocol(text: &str) -> Result<OtlpProtocol, String> {
    match text {
        "http/protobuf" => Ok(OtlpProtocol::Protobuf),
        "http/json" => Ok(OtlpProtocol::Json),
        "grpc" => {
            Err("grpc is not supported here; write http/protobuf or http/json, which collectors take at port 4318"
                .to_owned())
        }
        other => Err(format!("\"{other}\" is no protocol of OTLP; write http/protobuf or http/json")),
    }
}

pub(super) fn compression(text: &str) -> Result<(), String> {
    match text {
        "none" => Ok(()),
        other => Err(format!("\"{other}\" is not supported: requests are sent as they are; write none")),
    }
}

pub(super) fn service_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("is empty; leave it out for the name of the service".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn header(name: &str, value: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("\"{name}\" is not the name of a header"));
    }
    // The value may be a secret.
    if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(format!("the text of {name} cannot be the value of a header: only visible ASCII can"));
    }
    let ours = ["content-type", "content-length", "host", "connection", "transfer-encoding", "user-agent"];
    if ours.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
        return Err(format!("{name} is set by the exporter itself"));
    }
    Ok(())
}

pub(super) fn attribute(name: &str, _value: &str) -> Result<(), String> {
    if name.trim().is_empty() { Err("an attribute has no name".to_owned()) } else { Ok(()) }
}
