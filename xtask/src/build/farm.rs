//! The options of a build that name a farm.

use std::path::PathBuf;
use std::sync::Arc;

use kiln::cache::Events;
use kiln::farm::Farm as Machines;

use super::stats::FarmStats;
use crate::output::Failure;

/// The options of a build that name a farm.
#[derive(clap::Args)]
pub(super) struct FarmArgs {
    /// Let machines behind this server of Bazel's remote execution API compile, while this one
    /// compiles too: grpc://host:port/instance (grpcs with TLS). Needs `cargo xtask-remote` and a
    /// worker: see docs/farm.md. The default is $KILN_FARM, if it is set
    #[arg(long, value_name = "URL")]
    farm: Option<String>,
    /// The program that the machines run, which `cargo xtask worker` makes. The default is
    /// $KILN_WORKER, or the file kiln-worker beside this program
    #[arg(long, value_name = "FILE")]
    farm_worker: Option<PathBuf>,
    /// A property of the machines that the server asks for, such as OSFamily=linux; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    farm_property: Vec<(String, String)>,
    /// Do not use the farm that $KILN_FARM names
    #[arg(long, conflicts_with = "farm")]
    no_farm: bool,
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.into(), value.into())).ok_or_else(|| "expected NAME=VALUE".into())
}

impl FarmArgs {
    fn url(&self) -> Option<String> {
        let variable = || std::env::var("KILN_FARM").ok().filter(|url| !url.is_empty() && !self.no_farm);
        self.farm.clone().or_else(variable)
    }

    /// Returns the file of the worker.
    #[cfg(feature = "remote")]
    fn worker(&self) -> PathBuf {
        let variable = || std::env::var_os("KILN_WORKER").filter(|path| !path.is_empty()).map(PathBuf::from);
        let beside = || std::env::current_exe().unwrap_or_default().with_file_name("kiln-worker");
        self.farm_worker.clone().or_else(variable).unwrap_or_else(beside)
    }

    /// Returns whether a farm is named.
    pub(super) fn is_used(&self) -> bool {
        self.url().is_some()
    }

    /// Opens the farm, if one is named. Does not wait for the server.
    pub(super) fn open(&self, events: Arc<dyn Events>) -> Result<Option<Farm>, Failure> {
        self.url().map(|url| Farm::open(self, &url, events)).transpose()
    }
}

/// A farm.
#[cfg(feature = "remote")]
pub(super) struct Farm(Arc<kiln_remote::RemoteFarm>);

#[cfg(feature = "remote")]
impl Farm {
    fn open(args: &FarmArgs, url: &str, events: Arc<dyn Events>) -> Result<Self, Failure> {
        let endpoint = crate::cache::endpoint(url)?;
        let cannot = |error| Failure::while_doing(format!("cannot use the farm {endpoint}"), error);
        let mut options = kiln_remote::FarmOptions::with_worker_file(&args.worker()).map_err(cannot)?;
        options.platform.clone_from(&args.farm_property);
        options.events = Some(events);
        Ok(Self(Arc::new(kiln_remote::RemoteFarm::open(&endpoint, options).map_err(cannot)?)))
    }

    pub(super) fn machines(&self) -> Arc<dyn Machines> {
        self.0.clone()
    }

    /// Returns what the farm was given and answered.
    pub(super) fn stats(&self) -> FarmStats {
        let traffic = self.0.traffic();
        FarmStats {
            shards: traffic.shards,
            answered: traffic.answered,
            cached: traffic.cached,
            failed: traffic.failed,
            withdrawn: traffic.withdrawn,
            sent_bytes: traffic.sent_bytes,
            received_bytes: traffic.received_bytes,
            faults: traffic.faults,
        }
    }
}

/// There is none without the feature.
#[cfg(not(feature = "remote"))]
pub(super) enum Farm {}

#[cfg(not(feature = "remote"))]
impl Farm {
    fn open(args: &FarmArgs, _: &str, _: Arc<dyn Events>) -> Result<Self, Failure> {
        let _ = (&args.farm_worker, &args.farm_property);
        Err(crate::cache::without_servers())
    }

    pub(super) fn machines(&self) -> Arc<dyn Machines> {
        match *self {}
    }

    pub(super) fn stats(&self) -> FarmStats {
        match *self {}
    }
}
