//! Addresses of servers, and where credentials come from.
//!
//! An address is `scheme://user:password@host:port/path`, without the parts that are not needed.
//! Credentials are better in the usual variables and files, because others see the arguments of a
//! process. No message and no debug output of this crate has a secret in it.

use std::fmt;
use std::sync::Arc;

/// An address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is not an address.
    #[error("not an address of a server: expected scheme://host/path")]
    Malformed,
    /// This program does not speak the protocol.
    #[error("unknown protocol, or one that this program was built without: {0}")]
    Scheme(String),
    /// The address has no host, or no bucket.
    #[error("address without a host")]
    NoHost,
    /// A file of a key or token cannot be read.
    #[error("cannot read {0}")]
    Unreadable(String),
    /// The client of the protocol refuses the address.
    #[error("{0}")]
    Wrong(String),
}

/// Returns the value of a variable by name.
type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The address of a server. Variables of the process belong to it.
#[derive(Clone)]
pub struct Endpoint {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    /// The host and the port, as written.
    authority: String,
    path: String,
    variables: Arc<Variables>,
}

impl fmt::Display for Endpoint {
    /// Writes the address without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl Endpoint {
    /// Reads an address. Variables are those of this process.
    ///
    /// # Errors
    ///
    /// [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::with_variables(text, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Reads an address, with variables from elsewhere.
    ///
    /// # Errors
    ///
    /// [`EndpointError`].
    pub fn with_variables(
        text: &str,
        variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self, EndpointError> {
        let (scheme, rest) = text.split_once("://").ok_or(EndpointError::Malformed)?;
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if scheme.is_empty() || !scheme.bytes().all(is_word) {
            return Err(EndpointError::Malformed);
        }
        if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') || rest.contains(['?', '#']) {
            return Err(EndpointError::Malformed);
        }
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let (login, authority) = authority.rsplit_once('@').map_or((None, authority), |(a, b)| (Some(a), b));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(user).filter(|text| !text.is_empty()), Some(password)),
            None => (None, None),
        };
        Ok(Self {
            scheme: scheme.into(),
            user: user.map(str::to_owned),
            password: password.filter(|text| !text.is_empty()).map(str::to_owned),
            authority: authority.into(),
            path: path.into(),
            variables: Arc::new(variables),
        })
    }

    /// Returns the protocol.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the host, or the name of the bucket.
    pub(crate) fn host(&self) -> Result<&str, EndpointError> {
        if self.authority.is_empty() { Err(EndpointError::NoHost) } else { Ok(&self.authority) }
    }

    /// Returns the host and the port, which is `port` unless the address says another. A host in
    /// brackets is an address of IPv6.
    pub(crate) fn address(&self, port: u16) -> Result<String, EndpointError> {
        let host = self.host()?;
        let after_host = host.rfind(']').unwrap_or(0);
        Ok(if host[after_host..].contains(':') { host.into() } else { format!("{host}:{port}") })
    }

    /// Returns the host, an address of IPv6 without its brackets, and the port, as functions take
    /// them that connect.
    #[cfg(feature = "redis")]
    pub(crate) fn host_and_port(&self, port: u16) -> Result<(String, u16), EndpointError> {
        let address = self.address(port)?;
        let (host, port) = address.rsplit_once(':').ok_or(EndpointError::Malformed)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok((host.into(), port.parse().map_err(|_| EndpointError::Malformed)?))
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the password of the address, or of the variable `KILN_REMOTE_PASSWORD`.
    pub(crate) fn password(&self) -> Option<String> {
        self.password.clone().or_else(|| self.variable("KILN_REMOTE_PASSWORD"))
    }

    /// Returns the token of the variable `KILN_REMOTE_TOKEN`.
    pub(crate) fn token(&self) -> Option<String> {
        self.variable("KILN_REMOTE_TOKEN")
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name)
    }

    /// Returns everything that must not be in a message.
    pub(crate) fn secrets(&self) -> Secrets {
        let names = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "KILN_REMOTE_TOKEN"];
        // A proxy's password is in its address: `scheme://user:password@host`.
        let proxies = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"];
        let password = |url: String| {
            let (login, _) = url.rsplit_once('@')?;
            let login = login.split_once("://").map_or(login, |(_, login)| login);
            Some(login.split_once(':')?.1.to_owned())
        };
        let proxies = proxies.iter().filter_map(|name| password(self.variable(name)?));
        let all = names.iter().filter_map(|name| self.variable(name)).chain(self.password()).chain(proxies);
        // A word of a few letters is no secret, and would be found everywhere.
        Secrets(all.filter(|secret| secret.len() >= 4).collect())
    }
}

/// Texts that must not be in a message.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[String]>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Replaces every secret in a text.
    pub(crate) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(&**secret, "***"))
    }

    /// Returns what a server said as one line without secrets, and no more than a reader wants: it
    /// may be a whole page.
    #[cfg(feature = "server")]
    pub(crate) fn line(&self, text: &str) -> String {
        /// The most characters of a line.
        const MOST: usize = 400;
        // Secrets go first: what is left of one that is cut would be shown.
        self.hide(text).replace(['\n', '\r'], " ").chars().take(MOST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "server")]
    #[test]
    fn a_line_that_is_cut_shows_no_part_of_a_secret() {
        let secrets = Secrets(["very-secret".to_owned()].into());
        for before in 385..=400 {
            let line = secrets.line(&format!("{}very-secret\nand so on", "x".repeat(before)));
            assert!(line.len() <= 400 && !line.contains("v") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn addresses() {
        let read = |text: &str| Endpoint::with_variables(text, |_| None);
        let whole = read("redis://me:se:cr@et@host:1234/2").unwrap();
        assert_eq!((whole.user(), whole.password().as_deref()), (Some("me"), Some("se:cr@et")));
        assert_eq!((whole.address(6379).unwrap().as_str(), whole.path()), ("host:1234", "/2"));
        assert_eq!(whole.to_string(), "redis://host:1234/2");
        assert_eq!(format!("{whole:?}"), "Endpoint(redis://host:1234/2)");
        assert_eq!(whole.secrets().hide("no se:cr@et here"), "no *** here");
        let six = read("grpc://[::1]").unwrap();
        assert_eq!(six.address(443).unwrap(), "[::1]:443");
        assert_eq!(read("grpc://[::1]:80").unwrap().address(443).unwrap(), "[::1]:80");
        #[cfg(feature = "redis")]
        for (text, host) in [("redis://[::1]", "::1"), ("redis://[::1]:80", "::1"), ("redis://a.b:80", "a.b")]
        {
            let port = if text.ends_with("80") { 80 } else { 6379 };
            assert_eq!(read(text).unwrap().host_and_port(6379), Ok((host.into(), port)));
        }
        assert_eq!(read("file:///srv/cache").unwrap().path(), "/srv/cache");
        assert_eq!(read("s3:///x").unwrap().host(), Err(EndpointError::NoHost));
        for wrong in ["", "host", "://host", "S3://b", "s3://b?x=1", "s3://a b", "s3://a\nb"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
