//! Stores of objects that OpenDAL knows: S3, folders, WebDAV and others.

use futures::stream::TryStreamExt;
use opendal::{ErrorKind, Operator};

use crate::endpoint::{Endpoint, EndpointError, Secrets};
use crate::server::call::Fault;

#[derive(Debug)]
pub(crate) struct Objects {
    operator: Operator,
    secrets: Secrets,
    scheme: &'static str,
}

fn wrong(error: &opendal::Error, secrets: &Secrets) -> EndpointError {
    EndpointError::Wrong(secrets.hide(&error.to_string()))
}

impl Objects {
    pub(super) fn new(endpoint: &Endpoint, secrets: &Secrets) -> Result<Self, EndpointError> {
        let (operator, scheme) = operator(endpoint, secrets)?;
        Ok(Self { operator, secrets: secrets.clone(), scheme })
    }

    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    fn fault(&self, error: &opendal::Error) -> Fault {
        let temporary =
            error.is_temporary() || matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Unexpected);
        // The source of a failed connection says more than the message.
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            reason = format!("{reason}: {error}");
            source = error.source();
        }
        Fault { temporary, is_full: false, reason: self.secrets.line(&reason) }
    }

    /// Reads an object. Returns `None` if there is none, or if it is longer than `limit`.
    pub(super) async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        let read = async {
            let reader = self.operator.reader(path).await?;
            let mut stream = reader.into_stream(..).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.try_next().await? {
                if bytes.len() as u64 + chunk.len() as u64 > limit {
                    return Ok::<_, opendal::Error>(None);
                }
                for part in chunk {
                    bytes.extend_from_slice(&part);
                }
            }
            Ok(Some(bytes))
        };
        match read.await {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    pub(super) async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        self.operator.write(path, bytes.to_vec()).await.map(drop).map_err(|error| self.fault(&error))
    }
}

/// Makes the client of a store. Credentials are those of the usual variables and files.
fn operator(endpoint: &Endpoint, secrets: &Secrets) -> Result<(Operator, &'static str), EndpointError> {
    let _ = secrets;
    match endpoint.scheme() {
        #[cfg(feature = "fs")]
        "file" => {
            // A file gets its name when it is complete.
            let root = endpoint.path();
            let builder = opendal::services::Fs::default().root(root);
            let builder =
                builder.atomic_write_dir(&format!("{}/kiln-1/incoming", root.trim_end_matches('/')));
            Ok((Operator::new(builder).map_err(|error| wrong(&error, secrets))?, "file"))
        }
        #[cfg(feature = "s3")]
        "s3" => {
            let variable = |names: &[&str]| names.iter().find_map(|name| endpoint.variable(name));
            let region = variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or("us-east-1".into());
            let mut builder = opendal::services::S3::default()
                .bucket(endpoint.host()?)
                .root(endpoint.path())
                .region(&region)
                // Asking another machine who this is takes seconds where nobody answers.
                .disable_ec2_metadata();
            if let Some(server) = variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]) {
                builder = builder.endpoint(&server);
            }
            // Otherwise they are those of AWS's files, or of a role.
            let keys = variable(&["AWS_ACCESS_KEY_ID"]).zip(variable(&["AWS_SECRET_ACCESS_KEY"]));
            if let Some((id, secret)) = keys {
                builder = builder.access_key_id(&id).secret_access_key(&secret);
                if let Some(token) = variable(&["AWS_SESSION_TOKEN"]) {
                    builder = builder.session_token(&token);
                }
            }
            let operator = Operator::new(builder).map_err(|error| wrong(&error, secrets))?;
            Ok((with_http(operator, endpoint)?, "s3"))
        }
        #[cfg(feature = "webdav")]
        "webdav" | "webdavs" => {
            let http = if endpoint.scheme() == "webdav" { "http" } else { "https" };
            let address = endpoint.address(if http == "http" { 80 } else { 443 })?;
            let mut builder = opendal::services::Webdav::default()
                .endpoint(&format!("{http}://{address}"))
                .root(endpoint.path());
            if let (Some(user), Some(password)) = (endpoint.user(), endpoint.password()) {
                builder = builder.username(user).password(&password);
            } else if let Some(token) = endpoint.token() {
                builder = builder.token(&token);
            }
            let operator = Operator::new(builder).map_err(|error| wrong(&error, secrets))?;
            Ok((with_http(operator, endpoint)?, "webdav"))
        }
        #[cfg(feature = "gcs")]
        "gs" => {
            let builder = opendal::services::Gcs::default().bucket(endpoint.host()?).root(endpoint.path());
            let operator = Operator::new(builder).map_err(|error| wrong(&error, secrets))?;
            Ok((with_http(operator, endpoint)?, "gs"))
        }
        #[cfg(feature = "azblob")]
        "az" => {
            let mut builder =
                opendal::services::Azblob::default().container(endpoint.host()?).root(endpoint.path());
            if let Some(server) = endpoint.variable("AZURE_STORAGE_ENDPOINT") {
                builder = builder.endpoint(&server);
            }
            if let Some(account) = endpoint.variable("AZURE_STORAGE_ACCOUNT") {
                builder = builder.account_name(&account);
            }
            if let Some(key) = endpoint.variable("AZURE_STORAGE_KEY") {
                builder = builder.account_key(&key);
            }
            let operator = Operator::new(builder).map_err(|error| wrong(&error, secrets))?;
            Ok((with_http(operator, endpoint)?, "az"))
        }
        scheme => Err(EndpointError::Scheme(scheme.into())),
    }
}

/// Gives the store a client for HTTP, with the certificates of the system or of `SSL_CERT_FILE`,
/// and with the proxies of the usual variables.
#[cfg(any(feature = "s3", feature = "webdav", feature = "gcs", feature = "azblob"))]
fn with_http(operator: Operator, endpoint: &Endpoint) -> Result<Operator, EndpointError> {
    use opendal::{HttpTransporter, OperationContext};
    let wrong = |error: &dyn std::error::Error| EndpointError::Wrong(error.to_string());
    let mut client = reqwest::Client::builder()
        .connect_timeout(crate::server::CALL)
        // Those of the endpoint's variables, and no others.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    client = client.use_preconfigured_tls(crate::tls::client().map_err(|error| wrong(&error))?);
    for proxy in proxies(endpoint)? {
        client = client.proxy(proxy);
    }
    let client = client.build().map_err(|error| wrong(&error))?;
    let transport = HttpTransporter::new(opendal_http_transport_reqwest::ReqwestTransport::new(client));
    Ok(operator.with_context(OperationContext::new().with_http_transport(transport)))
}

/// Returns the proxies that the usual variables name, in either case. A variable for all protocols
/// counts less than one for a protocol.
#[cfg(any(feature = "s3", feature = "webdav", feature = "gcs", feature = "azblob"))]
fn proxies(endpoint: &Endpoint) -> Result<Vec<reqwest::Proxy>, EndpointError> {
    type Make = fn(String) -> reqwest::Result<reqwest::Proxy>;
    let variable =
        |name: &str| endpoint.variable(name).or_else(|| endpoint.variable(&name.to_ascii_lowercase()));
    let none = variable("NO_PROXY").and_then(|list| reqwest::NoProxy::from_string(&list));
    let kinds: [(&str, Make); 3] = [
        ("HTTPS_PROXY", reqwest::Proxy::https),
        ("HTTP_PROXY", reqwest::Proxy::http),
        ("ALL_PROXY", reqwest::Proxy::all),
    ];
    let named = kinds.into_iter().filter_map(|(name, make)| Some((name, make, variable(name)?)));
    named
        .map(|(name, make, url)| match make(url) {
            Ok(proxy) => Ok(proxy.no_proxy(none.clone())),
            // The address is not repeated: it may have a password.
            Err(_) => Err(EndpointError::Wrong(format!("{name} is not the address of a proxy"))),
        })
        .collect()
}
