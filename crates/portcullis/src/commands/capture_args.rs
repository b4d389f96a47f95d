//! The options that say what is captured: those of `intercept`, and of a holder that installs the rules itself.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueHint;
use portcullis_config::Cidr;
use portcullis_intercept::{Capture, Interface, Port, Selection, list};

use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure};

/// What is captured. Lists have commas; `*` is everything, an empty list nothing.
#[derive(Debug, clap::Args)]
pub(super) struct CaptureArgs {
    /// The proxy's configuration: captures the directions that have a transparent listener, and excludes its health, metrics
    /// and explicit ports [default: the text in $PORTCULLIS_CONFIG, /etc/portcullis/config.yaml, or Istio's ports]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Port of the transparent inbound listener [default: 15006, or that of the file]
    #[arg(long, value_name = "PORT")]
    inbound_capture_port: Option<Port>,
    /// Port of the transparent outbound listener [default: 15001, or that of the file]
    #[arg(long, value_name = "PORT")]
    outbound_capture_port: Option<Port>,
    /// User that the sidecar runs as; what this user sends is not captured, so no app may run as it
    #[arg(long, value_name = "UID", default_value_t = Capture::PROXY_UID)]
    proxy_uid: u32,
    /// Ports of this host that are captured
    #[arg(long, value_name = "PORTS", default_value_t = Selection::All)]
    include_inbound_ports: Selection<Port>,
    /// Ports of this host that bypass the sidecar and its policy
    #[arg(long, value_name = "PORTS", default_value = "")]
    exclude_inbound_ports: List<Port>,
    /// Clients whose connections are captured
    #[arg(long, value_name = "CIDRS", default_value_t = Selection::All)]
    include_inbound_ip_ranges: Selection<Cidr>,
    /// Clients whose connections bypass the sidecar and its policy
    #[arg(long, value_name = "CIDRS", default_value = "")]
    exclude_inbound_ip_ranges: List<Cidr>,
    /// Destination ports that are captured regardless of --include-outbound-ip-ranges
    #[arg(long, value_name = "PORTS", default_value = "")]
    include_outbound_ports: List<Port>,
    /// Destination ports that are not captured
    #[arg(long, value_name = "PORTS", default_value = "")]
    exclude_outbound_ports: List<Port>,
    /// Destinations that are captured
    #[arg(long, value_name = "CIDRS", default_value_t = Selection::All)]
    include_outbound_ip_ranges: Selection<Cidr>,
    /// Destinations that are not captured
    #[arg(long, value_name = "CIDRS", default_value = "")]
    exclude_outbound_ip_ranges: List<Cidr>,
    /// Network interfaces on which nothing is captured
    #[arg(long, value_name = "NAMES", default_value = "")]
    exclude_interfaces: List<Interface>,
    /// Drop UDP from outside to these ports; UDP is never captured, and no mode protects it
    #[arg(long, value_name = "PORTS", default_value = "")]
    drop_inbound_udp_ports: List<Port>,
    /// Drop UDP to these ports outside, unless the sidecar sends it
    #[arg(long, value_name = "PORTS", default_value = "")]
    drop_outbound_udp_ports: List<Port>,
}

/// One argument with commas. (clap takes a plain `Vec` for an argument that may be repeated.)
#[derive(Clone, Debug)]
struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        list(text).map(Self)
    }
}

impl CaptureArgs {
    /// The rules to make: those of the options, and of the configuration.
    pub(super) fn capture(&self) -> Result<Capture, Failure> {
        let mut capture = match ConfigSource::find(self.config.as_deref()) {
            Some(source) => captured_by(&source)?,
            None => Capture::istio(),
        };
        if let Some(inbound) = &mut capture.inbound {
            inbound.port = self.inbound_capture_port.unwrap_or(inbound.port);
            inbound.include_ports = self.include_inbound_ports.clone();
            inbound.exclude_ports.extend(&self.exclude_inbound_ports.0);
            inbound.include_ranges = self.include_inbound_ip_ranges.clone();
            inbound.exclude_ranges.extend(&self.exclude_inbound_ip_ranges.0);
        }
        if let Some(outbound) = &mut capture.outbound {
            outbound.port = self.outbound_capture_port.unwrap_or(outbound.port);
            outbound.include_ports.extend(&self.include_outbound_ports.0);
            outbound.exclude_ports.extend(&self.exclude_outbound_ports.0);
            outbound.include_ranges = self.include_outbound_ip_ranges.clone();
            outbound.exclude_ranges.extend(&self.exclude_outbound_ip_ranges.0);
        }
        capture.proxy_uid = self.proxy_uid;
        capture.exclude_interfaces.extend(self.exclude_interfaces.0.iter().cloned());
        capture.drop_inbound_udp.extend(&self.drop_inbound_udp_ports.0);
        capture.drop_outbound_udp.extend(&self.drop_outbound_udp_ports.0);
        Ok(capture)
    }
}

fn captured_by(source: &ConfigSource) -> Result<Capture, Failure> {
    let capture = Capture::of(&source.load()?.settings);
    if capture.inbound.is_none() && capture.outbound.is_none() {
        let message = format!(
            "{source}: there is nothing to capture for: neither inbound.transparent nor outbound.transparent is set"
        );
        return Err(Failure::message(Exit::BadConfig, message));
    }
    Ok(capture)
}
