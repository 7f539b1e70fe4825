//! Execution in this process: it runs the worker, as a process or as a function, and fails as it
//! is told.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::protobuf::Any;
use bazel_remote_apis::google::rpc;
use futures::stream::{self, Stream, StreamExt};
use prost::Message;
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Request, Response, Status};

use crate::server::{Fault, Inside, Service, damage};

/// The worker's bytes, if the shards are to be compiled in this process.
pub(crate) const IN_PROCESS: &[u8] = b"\x7fELF a worker that is a function of the test";

/// The machines of a server.
pub(crate) struct Machines {
    /// Whether there are any.
    pub(crate) is_there: bool,
    /// As many actions run at once.
    pub(crate) slots: Arc<Semaphore>,
    /// The time that is added to each action.
    pub(crate) delay: Duration,
    /// Operations by name, and names by action.
    operations: HashMap<String, watch::Receiver<Option<api::ExecuteResponse>>>,
    running: HashMap<String, String>,
    /// The actions that were run.
    pub(crate) executed: usize,
    /// The time for which the last one ran.
    pub(crate) busy: Duration,
}

impl Default for Machines {
    fn default() -> Self {
        Self {
            is_there: true,
            slots: Arc::new(Semaphore::new(4)),
            delay: Duration::ZERO,
            operations: HashMap::new(),
            running: HashMap::new(),
            executed: 0,
            busy: Duration::ZERO,
        }
    }
}

impl Inside {
    /// Forgets a shard, and all results.
    pub(crate) fn forget(&mut self, shard: &[u8]) {
        self.blobs.remove(&sha256(shard));
        self.actions.clear();
    }
}

type Sent = Pin<Box<dyn Stream<Item = Result<Operation, Status>> + Send>>;

impl Service {
    /// Returns a message that is stored, if all of it is there.
    fn stored<M: Message + Default>(&self, digest: &Option<api::Digest>) -> Option<M> {
        let inside = self.inside.lock().unwrap();
        let bytes = inside.blobs.get(&digest.as_ref()?.hash)?;
        Some(M::decode(&**bytes).unwrap())
    }

    /// Runs an action on a machine.
    fn run(&self, action: &api::Action) -> Option<api::ExecuteResponse> {
        let command: api::Command = self.stored(&action.command_digest)?;
        let root: api::Directory = self.stored(&action.input_root_digest)?;
        let names: Vec<&str> = root.files.iter().map(|file| &*file.name).collect();
        assert!(names.is_sorted() && command.output_paths == ["results"]);
        // Programs do not start from every file system that is in memory.
        let folder = tempfile::tempdir().unwrap();
        let mut in_process = false;
        for file in &root.files {
            let bytes = self.inside.lock().unwrap().blobs.get(&file.digest.as_ref()?.hash)?.clone();
            in_process |= bytes == IN_PROCESS;
            let path = folder.path().join(&file.name);
            std::fs::write(&path, bytes).unwrap();
            if file.is_executable {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        self.inside.lock().unwrap().machines.executed += 1;
        let mut result = api::ActionResult::default();
        if in_process {
            let shard = std::fs::read(folder.path().join("shard")).unwrap();
            let start = std::time::Instant::now();
            let bytes = kiln_worker::compile_shard(&shard).unwrap();
            self.inside.lock().unwrap().machines.busy = start.elapsed();
            std::fs::write(folder.path().join("results"), bytes).unwrap();
        } else {
            let [program, args @ ..] = &command.arguments[..] else { panic!("no command") };
            let mut process = Command::new(folder.path().join(program));
            process.args(args).current_dir(folder.path()).env_clear();
            match process.output() {
                Ok(output) => {
                    result.exit_code = output.status.code().unwrap_or(-1);
                    result.stderr_raw = output.stderr;
                }
                Err(error) => {
                    let (code, message) = (Code::Internal as i32, error.to_string());
                    let status = rpc::Status { code, message, ..Default::default() };
                    return Some(api::ExecuteResponse { status: Some(status), ..Default::default() });
                }
            }
        }
        let results: &Path = &folder.path().join("results");
        if let Ok(bytes) = std::fs::read(results) {
            let hash = sha256(&bytes);
            let digest = api::Digest { hash: hash.clone(), size_bytes: bytes.len() as i64 };
            self.inside.lock().unwrap().blobs.insert(hash, bytes);
            result.output_files.push(api::OutputFile {
                path: "results".into(),
                digest: Some(digest),
                ..Default::default()
            });
        }
        Some(api::ExecuteResponse { result: Some(result), ..Default::default() })
    }

    fn start_action(&self, hash: &str, again: bool) -> Result<String, Status> {
        let missing = || Status::failed_precondition("an input is missing");
        let mut inside = self.inside.lock().unwrap();
        let action = inside.blobs.get(hash).ok_or_else(missing)?;
        let action = api::Action::decode(&**action).unwrap();
        if let Some(name) = inside.machines.running.get(hash) {
            return Ok(name.clone());
        }
        let name = format!("operations/{}", inside.machines.operations.len());
        let (send, receive) = watch::channel(None);
        inside.machines.operations.insert(name.clone(), receive);
        if let Some(known) = inside.actions.get(hash).filter(|_| !again) {
            let result = Some(known.clone());
            let response = api::ExecuteResponse { result, cached_result: true, ..Default::default() };
            send.send_replace(Some(response));
            // The receiver keeps what was sent.
            return Ok(name);
        }
        inside.machines.running.insert(hash.into(), name.clone());
        let (slots, delay) = (Arc::clone(&inside.machines.slots), inside.machines.delay);
        drop(inside);
        let (own, hash) = (self.clone(), hash.to_owned());
        tokio::spawn(async move {
            let slot = slots.acquire_owned().await.unwrap();
            tokio::time::sleep(delay).await;
            let machine = own.clone();
            let response = tokio::task::spawn_blocking(move || machine.run(&action)).await.unwrap();
            drop(slot);
            let response = response.unwrap_or_else(|| {
                let code = Code::FailedPrecondition as i32;
                let status = rpc::Status { code, ..Default::default() };
                api::ExecuteResponse { status: Some(status), ..Default::default() }
            });
            let mut inside = own.inside.lock().unwrap();
            inside.machines.running.remove(&hash);
            if let Some(result) = response.result.as_ref().filter(|result| result.exit_code == 0) {
                inside.actions.insert(hash, result.clone());
            }
            send.send_replace(Some(response));
        });
        Ok(name)
    }

    fn operation(&self, name: String, fault: Option<Fault>) -> Result<Sent, Status> {
        let inside = self.inside.lock().unwrap();
        let receive =
            inside.machines.operations.get(&name).ok_or_else(|| Status::not_found("no operation"))?;
        let mut receive = receive.clone();
        drop(inside);
        let started = Operation { name: name.clone(), ..Default::default() };
        let own = self.clone();
        let end = async move {
            if fault == Some(Fault::Cut) {
                return Err(Status::unavailable("the connection is cut"));
            }
            // The sender may be gone, and has sent before.
            let _ = receive.wait_for(Option::is_some).await;
            let mut response = receive.borrow().clone().unwrap();
            own.spoil(&mut response, fault);
            let value = response.encode_to_vec();
            let type_url = "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse".into();
            let result = Some(operation::Result::Response(Any { type_url, value }));
            Ok(Operation { name, done: true, result, ..Default::default() })
        };
        Ok(Box::pin(stream::iter([Ok(started)]).chain(stream::once(end))))
    }

    /// Makes a response wrong.
    fn spoil(&self, response: &mut api::ExecuteResponse, fault: Option<Fault>) {
        let inside = self.inside.lock().unwrap();
        let Some(result) = &mut response.result else { return };
        for file in &mut result.output_files {
            let mut contents = inside.blobs[&file.digest.as_ref().unwrap().hash].clone();
            // Small ones are inlined.
            if contents.len() < 100_000 || fault.is_some() {
                damage(&mut contents, fault);
                file.contents = contents;
            }
        }
        match fault {
            Some(Fault::NoOutput) => result.output_files.clear(),
            Some(Fault::Exit(code)) => result.exit_code = code,
            Some(Fault::Swap) => {
                let mut others: Vec<_> = inside.actions.iter().collect();
                others.sort_unstable_by_key(|(of, _)| *of);
                let other = others.iter().find(|(_, other)| other.output_files != result.output_files);
                if let Some((_, other)) = other {
                    *result = (*other).clone();
                }
            }
            _ => {}
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl api::execution_server::Execution for Service {
    type ExecuteStream = Sent;
    async fn execute(
        &self,
        request: Request<api::ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let fault = self.call("execute", &request).await?;
        let request = request.into_inner();
        assert!(request.instance_name == "main" && request.inline_output_files == ["results"]);
        if fault == Some(Fault::Forget) {
            self.inside.lock().unwrap().blobs.clear();
        }
        let hash = request.action_digest.unwrap().hash;
        let name = self.start_action(&hash, request.skip_cache_lookup)?;
        Ok(Response::new(self.operation(name, fault)?))
    }

    type WaitExecutionStream = Sent;
    async fn wait_execution(
        &self,
        request: Request<api::WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        let fault = self.call("wait", &request).await?;
        Ok(Response::new(self.operation(request.into_inner().name, fault)?))
    }
}
