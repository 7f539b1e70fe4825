//! The options of a build that name a server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln::cache::Events;
use kiln_remote::{RemoteOptions, RemoteStore};

use crate::cache::{endpoint, policy};
use crate::output::Failure;

/// The options of a build that name a server.
#[derive(clap::Args)]
pub(super) struct RemoteArgs {
    /// Take code from this server that other machines share, and send new code there, after the
    /// local cache: grpc[s]://host:port/instance (Bazel), s3://bucket/path, redis[s]://host:port,
    /// file:///folder. See docs/caching-in-ci.md [default: $KILN_REMOTE, if it is set]
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

    /// Opens the store on the server, if one is named. Does not wait for the server.
    pub(super) fn open(&self, events: Arc<dyn Events>) -> Result<Option<RemoteStore>, Failure> {
        let Some(url) = self.url() else { return Ok(None) };
        let options = RemoteOptions {
            policy: policy(!self.remote_read_only)?,
            events: Some(events),
            drop_wait: Duration::from_secs_f64(self.remote_wait),
            ..RemoteOptions::default()
        };
        let endpoint = endpoint(&url)?;
        let opened = RemoteStore::open(&endpoint, options);
        let store = opened.map_err(|error| Failure::while_doing(format!("cannot use {endpoint}"), error))?;
        Ok(Some(store))
    }
}
