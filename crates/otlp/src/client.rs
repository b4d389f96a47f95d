//! Requests to one endpoint, over one HTTP/1.1 connection that is kept while the collector keeps it.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use portcullis_config::{Otlp, OtlpUrl};
use portcullis_tls::{Clock, MinVersion, OriginationParts, Originator, Roots, SystemRoots, originate};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::answer::Answer;

/// The largest answer that is read, in bytes: it holds two numbers and a sentence.
const MAX_ANSWER: usize = 64 * 1024;

/// Why an endpoint cannot be used at all.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SetupError {
    /// The roots, or TLS.
    #[error("{0}")]
    Tls(String),
    /// The headers or the URL; both are checked where they are read.
    #[error("{0} cannot be sent")]
    Request(String),
    /// The system has no thread for it.
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// Why there was no answer. All of these may pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("connecting: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer: {0}")]
    Answer(String),
}

pub(crate) struct Client {
    endpoint: OtlpUrl,
    uri: Uri,
    headers: HeaderMap,
    originator: Option<Arc<Originator>>,
    connection: Option<Connection>,
}

struct Connection {
    requests: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// `roots` are those of an https endpoint, in PEM.
    pub(crate) fn new(
        settings: &Otlp,
        roots: &[u8],
        content_type: &'static str,
        version: &str,
        clock: &Clock,
    ) -> Result<Self, SetupError> {
        let endpoint = settings.endpoint.clone();
        let originator = endpoint.tls.then(|| originator(settings, roots, clock)).transpose()?;
        let unsendable = |what: &str| SetupError::Request(what.to_owned());
        let uri = endpoint.path.parse().map_err(|_| unsendable(&endpoint.path))?;
        let mut headers = HeaderMap::new();
        let agent = format!("portcullis/{version}");
        headers.insert(USER_AGENT, HeaderValue::from_str(&agent).map_err(|_| unsendable(&agent))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let host = endpoint.address.to_string();
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| unsendable(&host))?);
        for (name, value) in settings.headers.iter() {
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable(name))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| unsendable(name))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        Ok(Self { endpoint, uri, headers, originator, connection: None })
    }

    /// Sends one request, and reads its answer. A kept connection that the collector has closed meanwhile is replaced once. The caller
    /// sets the deadline; a request that is cancelled ends its connection.
    pub(crate) async fn post(&mut self, body: &Bytes) -> Result<Answer, RequestError> {
        if let Some(kept) = self.connection.take().filter(|kept| !kept.requests.is_closed())
            && let Ok(answer) = self.exchange(kept, body).await
        {
            return Ok(answer);
        }
        let fresh = self.connect().await?;
        self.exchange(fresh, body).await
    }

    async fn exchange(&mut self, mut connection: Connection, body: &Bytes) -> Result<Answer, RequestError> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        connection.requests.ready().await?;
        let answer = read(connection.requests.send_request(request).await?).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Connection, RequestError> {
        let address = (self.endpoint.address.host.as_str(), self.endpoint.address.port);
        let stream = TcpStream::connect(address).await.map_err(RequestError::Connect)?;
        stream.set_nodelay(true).map_err(RequestError::Connect)?;
        match &self.originator {
            None => over(stream).await,
            Some(originator) => {
                let secured = originate(stream, originator).await;
                over(secured.map_err(|error| RequestError::Tls(error.to_string()))?.0).await
            }
        }
    }
}

async fn over<S>(stream: S) -> Result<Connection, RequestError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is that of the request.
    let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(Connection { requests, driver })
}

async fn read(response: Response<Incoming>) -> Result<Answer, RequestError> {
    let (head, body) = response.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
        let why =
            if error.is::<LengthLimitError>() { format!("larger than {MAX_ANSWER} bytes") } else { error.to_string() };
        RequestError::Answer(why)
    })?;
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after: header(RETRY_AFTER),
        content_type: header(CONTENT_TYPE),
        body: body.to_bytes().to_vec(),
    })
}

fn originator(settings: &Otlp, roots: &[u8], clock: &Clock) -> Result<Arc<Originator>, SetupError> {
    let failed = |error: String| SetupError::Tls(error);
    let system;
    let ca = if settings.certificate.is_some() {
        Roots::Chosen(roots)
    } else {
        system = SystemRoots::from_pem(roots).map_err(|error| failed(format!("the system's roots: {error}")))?;
        Roots::System(&system)
    };
    let sni = &settings.endpoint.address.host;
    let parts = OriginationParts { ca, client: None, subject_alt_names: &[], sni, min_version: MinVersion::Tls12 };
    Originator::new(&parts, clock).map(Arc::new).map_err(|error| failed(error.to_string()))
}
