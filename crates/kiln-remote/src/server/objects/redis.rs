//! Servers of Redis's protocol.
//!
//! OpenDAL knows them, too, but its client looks up an address of IPv6 with the brackets, which
//! fails, gives up an answer that takes half a second, asks before each command whether its
//! connection is alive, and reads a value whole, however long it is. So this uses the crate below
//! it, with one connection for all calls. A call that fails or is given up gives up the connection,
//! and the next call makes another.

use std::io::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Endpoint, EndpointError, Secrets};
use crate::server::call::Fault;

/// The most bytes of an answer beside the value: its length, or a message of the server.
const ANSWER: u64 = 4096;

/// The most bytes around a value in its answer.
const FRAME: u64 = 32;

/// A connection that is made when it is first used.
type Connection = Arc<OnceCell<(MultiplexedConnection, Expected)>>;
/// The bytes that a server may still send as answers to what it was asked.
type Expected = Arc<AtomicI64>;

pub(crate) struct Redis {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    login: RedisConnectionInfo,
    connection: Mutex<Connection>,
    secrets: Secrets,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Redis {
    pub(super) fn new(endpoint: &Endpoint, secrets: &Secrets) -> Result<Self, EndpointError> {
        let (host, port) = endpoint.host_and_port(6379)?;
        let tls = if endpoint.scheme() == "rediss" {
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|_| EndpointError::Wrong(format!("{host} is not the name of a host")))?;
            Some((TlsConnector::from(Arc::new(crate::tls::client()?)), name))
        } else {
            None
        };
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = endpoint.user() {
            login = login.set_username(user);
        }
        if let Some(password) = endpoint.password() {
            login = login.set_password(password);
        }
        match endpoint.path().trim_matches('/') {
            "" => {}
            number => {
                let number = number.parse();
                login = login.set_db(number.map_err(|_| {
                    EndpointError::Wrong("the path of a Redis server is the number of a database".into())
                })?);
            }
        }
        Ok(Self { host, port, tls, login, connection: Mutex::default(), secrets: secrets.clone() })
    }

    /// Reads a value. Returns `None` if there is none, or if it is longer than `limit`.
    pub(super) async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mut command = redis::cmd("GETRANGE");
        // The last place is that of a byte, and one more byte shows that a value is too long.
        command.arg(path).arg(0).arg(limit);
        match self.call(&command, limit + 1).await? {
            // A value that is not there has no bytes. Nothing of ours has none.
            Value::BulkString(bytes) if bytes.is_empty() || bytes.len() as u64 > limit => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            _ => Err(Fault::temporary("an answer that is not a value")),
        }
    }

    pub(super) async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        let mut command = redis::cmd("SET");
        command.arg(path).arg(bytes);
        self.call(&command, 0).await.map(drop)
    }

    /// Sends a command, whose answer has a value of at most `limit` bytes.
    async fn call(&self, command: &Cmd, limit: u64) -> Result<Value, Fault> {
        let connection = Arc::clone(&self.connection.lock().unwrap_or_else(PoisonError::into_inner));
        let mut used = Used { of: self, connection, is_well: false };
        let made = used.connection.get_or_try_init(|| self.connect()).await;
        let (mut connection, expected) = made.map_err(|error| self.fault(&error))?.clone();
        expected.fetch_add((limit + ANSWER) as i64, Relaxed);
        let result = command.query_async(&mut connection).await;
        let len = match &result {
            Ok(Value::BulkString(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        expected.fetch_sub((limit + ANSWER).saturating_sub(len + FRAME) as i64, Relaxed);
        // A server that refuses a command has answered it.
        used.is_well = result.as_ref().map_or_else(|error: &RedisError| error.code().is_some(), |_| true);
        result.map_err(|error| self.fault(&error))
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Expected), RedisError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.log_in(stream).await,
            Some((tls, name)) => self.log_in(tls.connect(name.clone(), stream).await?).await,
        }
    }

    async fn log_in<S>(&self, stream: S) -> Result<(MultiplexedConnection, Expected), RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let expected = Expected::new((2 * ANSWER as i64).into());
        let stream = Bounded { stream, expected: Arc::clone(&expected) };
        // Whoever calls limits the time.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.login, stream, config).await?;
        tokio::spawn(driver);
        Ok((connection, expected))
    }

    fn fault(&self, error: &RedisError) -> Fault {
        let temporary = !matches!(error.kind(), ErrorKind::AuthenticationFailed);
        Fault { temporary, is_full: false, reason: self.secrets.line(&error.to_string()) }
    }
}

/// A connection that a call uses.
struct Used<'a> {
    of: &'a Redis,
    connection: Connection,
    is_well: bool,
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        let mut current = self.of.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_well && Arc::ptr_eq(&current, &self.connection) {
            *current = Connection::default();
        }
    }
}

/// A stream that fails when the server sends more than it was asked for.
struct Bounded<S> {
    stream: S,
    expected: Expected,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        let before = bytes.filled().len();
        let done = ready!(Pin::new(&mut self.stream).poll_read(context, bytes));
        let len = (bytes.filled().len() - before) as i64;
        if self.expected.fetch_sub(len, Relaxed) < len {
            return Poll::Ready(Err(Error::other("more than was asked for")));
        }
        Poll::Ready(done)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
