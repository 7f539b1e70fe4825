//! The options of a build that name a server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln::cache::{Events, Store};

use super::stats::Exchange;
use crate::output::Failure;

/// The options of a build that name a server.
#[derive(clap::Args)]
pub(super) struct RemoteArgs {
    /// Take code from this server that other machines share, and send new code there, after the
    /// local cache: grpc://host:port/instance (Bazel; grpcs with TLS), s3://bucket/path,
    /// redis://host:port (rediss with TLS), file:///folder. Needs `cargo xtask-remote`; see
    /// docs/caching-in-ci.md. The default is $KILN_REMOTE, if it is set
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// Take code from the server, and send nothing
    #[arg(long)]
    remote_read_only: bool,
    /// Do not use the server that $KILN_REMOTE names
    #[arg(long, conflicts_with = "remote")]
    no_remote: bool,
    /// How long to wait at the end until new code is sent
    #[arg(long, value_name = "SECONDS", default_value_t = 0.75, value_parser = seconds)]
    remote_wait: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("expected 0 to 86400".into()) }
}

impl RemoteArgs {
    fn url(&self) -> Option<String> {
        let variable = || std::env::var("KILN_REMOTE").ok().filter(|url| !url.is_empty() && !self.no_remote);
        self.remote.clone().or_else(variable)
    }

    /// Returns the word that messages have for the server.
    pub(super) fn shown(&self) -> Option<&Path> {
        self.url().map(|_| Path::new("of the server"))
    }

    /// Returns how long the build waits at its end until everything is sent.
    pub(super) fn wait(&self) -> Duration {
        Duration::from_secs_f64(self.remote_wait)
    }

    /// Opens the store on the server, if one is named. Does not wait for the server.
    pub(super) fn open(&self, events: Arc<dyn Events>) -> Result<Option<Remote>, Failure> {
        self.url().map(|url| Remote::open(&url, !self.remote_read_only, events)).transpose()
    }
}

/// A store on a server.
#[cfg(feature = "remote")]
pub(super) struct Remote(Arc<kiln_remote::RemoteStore>);

#[cfg(feature = "remote")]
impl Remote {
    fn open(url: &str, write: bool, events: Arc<dyn Events>) -> Result<Self, Failure> {
        use kiln_remote::{RemoteOptions, RemoteStore};
        let options = RemoteOptions {
            policy: crate::cache::policy(write)?,
            events: Some(events),
            // The build waits by itself, so that the numbers are those after the wait.
            drop_wait: Duration::ZERO,
            ..RemoteOptions::default()
        };
        let endpoint = crate::cache::endpoint(url)?;
        let opened = RemoteStore::open(&endpoint, options);
        let store = opened.map_err(|error| Failure::while_doing(format!("cannot use {endpoint}"), error))?;
        Ok(Self(Arc::new(store)))
    }

    pub(super) fn store(&self) -> Arc<dyn Store + Send + Sync> {
        self.0.clone()
    }

    /// Waits until everything is sent, at most this long. Returns what was exchanged; `started` is
    /// when the build began to wait.
    pub(super) fn finish(self, wait: Duration, started: Instant) -> Exchange {
        self.0.flush(wait);
        let traffic = self.0.traffic();
        drop(self);
        Exchange {
            lookups: traffic.lookups,
            received: traffic.received,
            received_bytes: traffic.received_bytes,
            sent: traffic.sent,
            sent_bytes: traffic.sent_bytes,
            unsent: traffic.unsent,
            refused: traffic.refused,
            faults: traffic.faults,
            waited_seconds: started.elapsed().as_secs_f64(),
        }
    }
}

/// There is none without the feature.
#[cfg(not(feature = "remote"))]
pub(super) enum Remote {}

#[cfg(not(feature = "remote"))]
impl Remote {
    fn open(_: &str, _: bool, _: Arc<dyn Events>) -> Result<Self, Failure> {
        Err(crate::cache::without_servers())
    }

    pub(super) fn store(&self) -> Arc<dyn Store + Send + Sync> {
        match *self {}
    }

    pub(super) fn finish(self, _: Duration, _: Instant) -> Exchange {
        match self {}
    }
}
