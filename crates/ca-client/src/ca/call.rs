//! The two calls to the CA. Each uses its own connection, since they are hours apart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{CaClient, HostPort};
use portcullis_rpc::bundles::join_client::JoinClient;
use portcullis_rpc::bundles::trust_bundles_client::TrustBundlesClient;
use portcullis_rpc::bundles::{BootstrapToken, GetTrustBundlesRequest, GetTrustBundlesResponse, RenewTokenRequest};
use portcullis_rpc::istio::IstioCertificateRequest;
use portcullis_rpc::istio::istio_certificate_service_client::IstioCertificateServiceClient;
use portcullis_tls::{Clock, Credentials, ca_channel};
use rustls_pki_types::{CertificateDer, ServerName};
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Request};
use zeroize::Zeroizing;

use crate::channel::{Channel, within};
use crate::error::{AnswerError, FetchError, clean};

/// From the request to the whole answer. A CA may sign with a slow key or forward the request.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer answer is not read, in bytes: ten certificates of 64 KiB in all are less in PEM.
const MAX_CHAIN_LEN: usize = 128 * 1024;
/// Bundles of many domains, in bytes.
const MAX_BUNDLES_LEN: usize = 1024 * 1024;
/// SHA-256 of the bundles that the caller uses.
const BUNDLE_DIGEST_HEADER: &str = "x-portcullis-bundle";

/// Live connections by the root that the peer's chain ends at: `none`, or `SHA-256=COUNT` with commas between.
const CONNECTIONS_HEADER: &str = "x-portcullis-connections";
/// The most roots in a report. Those with the most connections are kept.
const MAX_REPORTED_ROOTS: usize = 16;

/// The parameters of `CreateCertificate`.
pub(super) struct CertificateRequest {
    /// PKCS#10 in PEM.
    pub(super) csr: String,
    /// The requested lifetime; the authority's default if `None`.
    pub(super) ttl: Option<Duration>,
}

/// The usage report: bundles in force and live connections by root.
pub(super) struct Usage {
    /// SHA-256 of the bundles in force.
    pub(super) bundle_digest: Option<String>,
    /// Live connections by root.
    pub(super) connections: BTreeMap<Arc<String>, u64>,
}

fn connections_text(connections: &BTreeMap<Arc<String>, u64>) -> String {
    let mut all: Vec<_> = connections.iter().filter(|(_, count)| **count > 0).collect();
    if all.is_empty() {
        return "none".to_owned();
    }
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    all.truncate(MAX_REPORTED_ROOTS);
    all.iter().map(|(root, count)| format!("{root}={count}")).collect::<Vec<_>>().join(",")
}

/// The credentials of a call.
pub(super) enum CallCredentials {
    /// A bearer token.
    Token(Zeroizing<String>),
    /// Our current SVID, as TLS client certificate.
    Svid(Arc<Credentials>),
}

/// The address, server name and clock for calls to the CA.
pub(super) struct CaEndpoint {
    address: HostPort,
    name: ServerName<'static>,
    origin: Uri,
    clock: Clock,
}

impl CaEndpoint {
    pub(super) fn new(ca: &CaClient, clock: Clock) -> Result<Self, FetchError> {
        let local = |message: String| FetchError::Local { reason: "server-name", message, missing: false };
        let name = server_name(&ca.server_name)
            .ok_or_else(|| local(format!("serverName: {} is not a valid TLS server name", ca.server_name)))?;
        let origin = format!("https://{}", ca.address);
        let origin = origin.parse().map_err(|error| local(format!("address: {}: {error}", ca.address)))?;
        Ok(Self { address: ca.address.clone(), name, origin, clock })
    }

    /// Calls `CreateCertificate` and returns the certificates of the response unchanged.
    pub(super) async fn create_certificate(
        &self,
        roots: Vec<CertificateDer<'static>>,
        credentials: &CallCredentials,
        usage: &Usage,
        CertificateRequest { csr, ttl }: CertificateRequest,
    ) -> Result<Vec<String>, FetchError> {
        let channel = self.channel(roots, credentials).await?;
        let mut client = IstioCertificateServiceClient::with_origin(channel, self.origin.clone())
            .max_decoding_message_size(MAX_CHAIN_LEN);
        // Zero leaves it to the authority, with istiod as with ours.
        let validity_duration = ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        let request = IstioCertificateRequest { csr, validity_duration, metadata: None };
        let request = with_metadata(request, credentials, usage)?;
        let answer = within(CALL_TIMEOUT, "CreateCertificate", async {
            client.create_certificate(request).await.map_err(|status| FetchError::from_status(&status))
        });
        Ok(answer.await?.into_inner().cert_chain)
    }

    /// Calls `GetTrustBundles`; `None` if this CA does not implement it.
    pub(super) async fn trust_bundles(
        &self,
        roots: Vec<CertificateDer<'static>>,
        credentials: &CallCredentials,
        usage: &Usage,
    ) -> Result<Option<GetTrustBundlesResponse>, FetchError> {
        let channel = self.channel(roots, credentials).await?;
        let mut client =
            TrustBundlesClient::with_origin(channel, self.origin.clone()).max_decoding_message_size(MAX_BUNDLES_LEN);
        let request = with_metadata(GetTrustBundlesRequest {}, credentials, usage)?;
        let answer = within(CALL_TIMEOUT, "GetTrustBundles", async {
            client.get_trust_bundles(request).await.map_err(|status| FetchError::from_status(&status))
        });
        match answer.await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(FetchError::Refused { code: Code::Unimplemented, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for a bootstrap token for the next start.
    pub(super) async fn renew_token(
        &self,
        roots: Vec<CertificateDer<'static>>,
        credentials: &CallCredentials,
    ) -> Result<BootstrapToken, FetchError> {
        let channel = self.channel(roots, credentials).await?;
        let mut client = JoinClient::with_origin(channel, self.origin.clone()).max_decoding_message_size(MAX_CHAIN_LEN);
        let answer = within(CALL_TIMEOUT, "RenewToken", async {
            client.renew_token(RenewTokenRequest {}).await.map_err(|status| FetchError::from_status(&status))
        });
        Ok(answer.await?.into_inner())
    }

    async fn channel(
        &self,
        roots: Vec<CertificateDer<'static>>,
        credentials: &CallCredentials,
    ) -> Result<Channel, FetchError> {
        let own = match credentials {
            CallCredentials::Token(_) => None,
            CallCredentials::Svid(own) => Some(own.as_ref()),
        };
        let tls = |error: String| FetchError::Tls(clean(&error));
        let config = ca_channel::client_config(roots, own, &self.clock).map_err(|error| tls(error.to_string()))?;
        let refused = |error: &std::io::Error| tls(error.to_string());
        Channel::connect(&self.address, self.name.clone(), config, refused).await
    }
}

/// The name that the certificate of a server must have.
pub(crate) fn server_name(text: &str) -> Option<ServerName<'static>> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::IpAddress(ip.into())),
        Err(_) => ServerName::try_from(text.trim_end_matches('.').to_owned()).ok(),
    }
}

fn with_metadata<T>(message: T, credentials: &CallCredentials, usage: &Usage) -> Result<Request<T>, FetchError> {
    let mut request = Request::new(message);
    let metadata: &mut MetadataMap = request.metadata_mut();
    if let Some(digest) = usage.bundle_digest.as_ref().and_then(|digest| digest.parse::<MetadataValue<Ascii>>().ok()) {
        metadata.insert(BUNDLE_DIGEST_HEADER, digest);
    }
    if let Ok(connections) = connections_text(&usage.connections).parse::<MetadataValue<Ascii>>() {
        metadata.insert(CONNECTIONS_HEADER, connections);
    }
    if let CallCredentials::Token(token) = credentials {
        let wrong = || FetchError::Local {
            reason: "token-file",
            message: "tokenFile: it holds something that is no token".to_owned(),
            missing: false,
        };
        metadata.insert("authorization", bearer(token).ok_or_else(wrong)?);
    }
    Ok(request)
}

/// A secret as the value of `authorization`; none if it cannot be a token.
pub(crate) fn bearer(token: &str) -> Option<MetadataValue<Ascii>> {
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let mut bearer: MetadataValue<Ascii> = bearer.parse().ok()?;
    bearer.set_sensitive(true);
    Some(bearer)
}

/// Puts the answer's strings together: each holds one certificate or more.
pub(super) fn chain_pem(chain: &[String]) -> Result<Vec<u8>, AnswerError> {
    let text = chain.join("\n");
    if text.trim().is_empty() { Err(AnswerError::Empty) } else { Ok(text.into_bytes()) }
}
