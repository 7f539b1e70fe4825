//! Execution of Bazel's remote APIs: actions that other machines run.
//!
//! An action is a command and a folder of inputs, each named by its digest. A server streams what
//! becomes of it, and keeps its result: an equal action that runs is joined, and one that has run
//! is answered at once. A stream that is cut is taken up again by the name of its operation.

use std::time::Duration;

use api::execution_client::ExecutionClient;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use prost::Message;
use tonic::{Code, Status, Streaming};

use super::bazel::{Bazel, MESSAGE, SHA256, digest};
use super::call::Fault;
use crate::record::Digest;

/// The longest time without a word of the server about an action. It may wait in a queue, and
/// nobody waits for it.
const SILENCE: Duration = Duration::from_secs(600);
/// How often a stream that was cut is taken up again.
const RESUMED: u32 = 5;
/// The time before it is taken up.
const PAUSE: Duration = Duration::from_millis(50);

/// The end of an action.
#[derive(Debug)]
pub(crate) enum Executed {
    /// The command ended with exit code 0: its result, and whether it was known before.
    Done(Box<api::ActionResult>, bool),
    /// The server does not have all inputs, or no longer.
    Missing,
    /// The command did not succeed, or could not be run: the reason.
    Failed(String),
}

/// Returns text of a server in one short line.
fn line(text: &str) -> String {
    let text = text.trim_ascii();
    let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
    line.escape_debug().to_string()
}

impl Bazel {
    fn execution(&self) -> ExecutionClient<super::bazel::Service> {
        ExecutionClient::new(self.service().clone()).max_decoding_message_size(MESSAGE)
    }

    /// Returns whether the server executes actions.
    pub(crate) async fn executes(&self) -> Result<(), Fault> {
        let capabilities = self.capabilities().await?;
        let execution = capabilities.execution_capabilities.filter(|execution| execution.exec_enabled);
        if execution.is_none() {
            return Err(Fault::lasting("the server executes nothing"));
        }
        Ok(())
    }

    /// Executes an action whose inputs were stored, and waits for its end. `again` executes it even
    /// if its result is known. `output` is the path of the file that the result should contain.
    pub(crate) async fn execute(
        &self,
        action: &Digest,
        again: bool,
        output: &str,
    ) -> Result<Executed, Fault> {
        let request = api::ExecuteRequest {
            instance_name: self.instance().into(),
            skip_cache_lookup: again,
            action_digest: Some(digest(action)),
            digest_function: SHA256,
            inline_stderr: true,
            inline_output_files: vec![output.into()],
            ..api::ExecuteRequest::default()
        };
        let started = tokio::time::timeout(SILENCE, self.execution().execute(request)).await;
        let started = started.map_err(|_| Fault::temporary("no word about an action"))?;
        let mut stream = match started {
            Ok(stream) => stream.into_inner(),
            Err(status) if is_missing(status.code()) => return Ok(Executed::Missing),
            Err(status) => return Err(self.fault(&status)),
        };
        let (mut name, mut resumed) = (String::new(), 0);
        loop {
            let cut = match self.follow(&mut stream, &mut name).await {
                Ok(operation) => return self.ended(operation),
                Err(fault) => fault,
            };
            if name.is_empty() || !cut.temporary {
                return Err(cut);
            }
            stream = loop {
                if resumed == RESUMED {
                    return Err(cut);
                }
                resumed += 1;
                tokio::time::sleep(PAUSE * resumed).await;
                let request = api::WaitExecutionRequest { name: name.clone() };
                match self.execution().wait_execution(request).await {
                    Ok(stream) => break stream.into_inner(),
                    // The server has forgotten it.
                    Err(status) if status.code() == Code::NotFound => return Err(cut),
                    Err(status) => {
                        let fault = self.fault(&status);
                        if !fault.temporary {
                            return Err(fault);
                        }
                    }
                }
            };
        }
    }

    /// Follows a stream to the end of its operation, whose name is noted.
    async fn follow(&self, stream: &mut Streaming<Operation>, name: &mut String) -> Result<Operation, Fault> {
        loop {
            let message = tokio::time::timeout(SILENCE, stream.message()).await;
            match message {
                Err(_) => return Err(Fault::temporary("no word about an action")),
                Ok(Err(status)) => return Err(self.fault(&status)),
                Ok(Ok(None)) => return Err(Fault::temporary("a stream that ended before its action")),
                Ok(Ok(Some(operation))) if operation.done => return Ok(operation),
                Ok(Ok(Some(operation))) => {
                    // A name that is long enough to fill memory is none.
                    if !operation.name.is_empty() && operation.name.len() < 4096 {
                        *name = operation.name;
                    }
                }
            }
        }
    }

    /// Reads the end of an operation.
    fn ended(&self, operation: Operation) -> Result<Executed, Fault> {
        let response = match operation.result {
            Some(operation::Result::Response(response)) => response,
            Some(operation::Result::Error(status)) => {
                return Err(self.fault(&Status::new(Code::from(status.code), status.message)));
            }
            None => return Err(Fault::temporary("an action without a result")),
        };
        let response = api::ExecuteResponse::decode(&*response.value)
            .map_err(|_| Fault::temporary("a result of an action that cannot be read"))?;
        let status = response.status.unwrap_or_default();
        match Code::from(status.code) {
            Code::Ok => {}
            code if is_missing(code) => return Ok(Executed::Missing),
            code => return Err(self.fault(&Status::new(code, status.message))),
        }
        let Some(result) = response.result else {
            return Err(Fault::temporary("an action without a result"));
        };
        if result.exit_code != 0 {
            let said = line(&String::from_utf8_lossy(&result.stderr_raw));
            let colon = if said.is_empty() { "" } else { ": " };
            return Ok(Executed::Failed(format!(
                "the worker ended with exit code {}{colon}{said}",
                result.exit_code
            )));
        }
        Ok(Executed::Done(Box::new(result), response.cached_result))
    }

    /// Returns an output file of an action, whose digest is verified; `None` if the server does not
    /// have it or sends other bytes. A file that is longer than `limit` is not read.
    pub(crate) async fn output(
        &self,
        result: &api::ActionResult,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let Some(file) = result.output_files.iter().find(|file| file.path == path) else { return Ok(None) };
        let named = file.digest.as_ref().and_then(|digest| Digest::parse(&digest.hash, digest.size_bytes));
        let Some(named) = named.filter(|named| named.len <= limit) else { return Ok(None) };
        let bytes = if file.contents.is_empty() {
            self.contents(&[named]).await?.pop().flatten()
        } else {
            Some(file.contents.clone())
        };
        Ok(bytes.filter(|bytes| Digest::of(bytes) == named))
    }
}

/// Whether a server that answers with this code lacks an input.
fn is_missing(code: Code) -> bool {
    matches!(code, Code::FailedPrecondition | Code::NotFound)
}
