use portcullis_policy::Mode;

use super::*;
use crate::observation::Handshake;
use crate::probe::Skipped;

const HANDSHAKE: Handshake = Handshake { version: "TLSv1.3", resumed: false, early_data: None };

fn seen(attempt: Attempt, stage: Stage, end: End, bytes: &[u8]) -> (Attempt, Probe) {
    let observation = Observation { bytes: bytes.to_vec(), ..Observation::ended(stage, end) };
    (attempt, Probe::Tried(Box::new(observation)))
}

fn after_handshake(attempt: Attempt, stage: Stage, end: End, bytes: &[u8]) -> (Attempt, Probe) {
    let observation =
        Observation { bytes: bytes.to_vec(), handshake: Some(HANDSHAKE), ..Observation::ended(stage, end) };
    (attempt, Probe::Tried(Box::new(observation)))
}

fn strict(probes: &[(Attempt, Probe)]) -> Vec<(Outcome, ProbeVerdict)> {
    let rows = evaluate(probes, &Policy::mode(Mode::Strict), true);
    rows.into_iter().map(|row| (row.outcome, row.verdict)).collect()
}

#[test]
fn an_app_that_closes_without_a_byte_is_no_proof_of_a_refusal() {
    let closed = seen(Attempt::Plaintext, Stage::Request, End::Closed, b"");
    assert_eq!(strict(std::slice::from_ref(&closed)), [(Outcome::Unclear, ProbeVerdict::Unproven)]);
    // The same app says nothing to the right identity either.
    let silent = after_handshake(Attempt::RightIdentity, Stage::Request, End::CloseNotify, b"");
    assert_eq!(strict(&[silent, closed.clone()]), [(Outcome::Unclear, ProbeVerdict::Unproven); 2]);
    // It does answer it, so it was not the app that closed.
    let answered = after_handshake(Attempt::RightIdentity, Stage::Request, End::Answered, b"HTTP/1.1 200 OK");
    assert_eq!(
        strict(&[answered, closed]),
        [(Outcome::Accepted, ProbeVerdict::AsExpected), (Outcome::Refused, ProbeVerdict::AsExpected)]
    );
    // No app ends a connection after one byte of a request.
    let first = seen(Attempt::Plaintext, Stage::FirstByte, End::Reset, b"");
    assert_eq!(strict(&[first]), [(Outcome::Refused, ProbeVerdict::AsExpected)]);
}

#[test]
fn a_completed_handshake_alone_proves_nothing() {
    for end in [End::Closed, End::CloseNotify, End::Reset] {
        let probe = after_handshake(Attempt::WrongCa, Stage::Request, end, b"");
        assert_eq!(strict(&[probe]), [(Outcome::Unclear, ProbeVerdict::Unproven)]);
    }
    let alert = End::Alert(AlertDescription::CertificateRequired);
    let refused = after_handshake(Attempt::NoCertificate, Stage::Request, alert, b"");
    assert_eq!(strict(&[refused]), [(Outcome::Refused, ProbeVerdict::AsExpected)]);
    for (stage, end) in [(Stage::HalfClosed, End::CloseNotify), (Stage::HalfClosed, End::Silent)] {
        let let_in = after_handshake(Attempt::WrongCa, stage, end, b"");
        assert_eq!(strict(&[let_in]), [(Outcome::Accepted, ProbeVerdict::Different)]);
    }
}

#[test]
fn a_refusal_in_words_is_no_byte_of_the_app() {
    let hint = b"HTTP/1.1 403 Forbidden\r\n\r\nMutual TLS is required here. Connect from";
    let refused = seen(Attempt::Plaintext, Stage::Request, End::Answered, hint);
    let let_in = seen(Attempt::Plaintext, Stage::Request, End::Answered, b"HTTP/1.1 403 Forbidden\r\n\r\nno");
    assert_eq!(strict(&[refused]), [(Outcome::Refused, ProbeVerdict::AsExpected)]);
    assert_eq!(strict(&[let_in]), [(Outcome::Accepted, ProbeVerdict::Different)]);
}

#[test]
fn silence_is_kept_under_strict_as_long_as_no_byte_comes() {
    let silent = |end, bytes: &[u8]| strict(&[seen(Attempt::Silence, Stage::Opening, end, bytes)]);
    assert_eq!(silent(End::Silent, b""), [(Outcome::Silent, ProbeVerdict::AsExpected)]);
    assert_eq!(silent(End::Closed, b""), [(Outcome::Refused, ProbeVerdict::AsExpected)]);
    assert_eq!(silent(End::Answered, b"220 smtp"), [(Outcome::Accepted, ProbeVerdict::Different)]);
}

#[test]
fn an_app_behind_strict_that_gets_tls_is_a_finding() {
    let passed = seen(Attempt::NoAlpn, Stage::Opening, End::NotTls, b"HTTP/1.1 400 Bad Request");
    assert_eq!(strict(std::slice::from_ref(&passed)), [(Outcome::NotTerminated, ProbeVerdict::Different)]);
    let rows = evaluate(&[passed], &Policy::mode(Mode::Permissive), true);
    assert_eq!(rows.first().map(|row| row.verdict), Some(ProbeVerdict::AsExpected));
}

#[test]
fn what_was_not_tried_and_what_the_policy_leaves_open_never_fails() {
    let skipped = (Attempt::RightIdentity, Probe::Skipped(Skipped::NoCredentials));
    assert_eq!(strict(&[skipped]), [(Outcome::NotTried, ProbeVerdict::NotTried)]);
    let open = seen(Attempt::Silence, Stage::Opening, End::Answered, b"220 smtp");
    let rows = evaluate(&[open], &Policy::mode(Mode::Disable), false);
    assert_eq!(rows.first().map(|row| row.verdict), Some(ProbeVerdict::AsExpected));
}

#[test]
fn alerts_have_the_names_of_the_standard() {
    let name = alert_name;
    assert_eq!(name(AlertDescription::CertificateRequired), "certificate_required");
    assert_eq!(name(AlertDescription::UnknownCA), "unknown_ca");
    assert_eq!(name(AlertDescription::ProtocolVersion), "protocol_version");
}
