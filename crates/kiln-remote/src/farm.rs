//! A farm behind a server of Bazel's remote execution API.
//!
//! A shard becomes an action: the command `kiln-worker shard results`, and a folder with the worker
//! and the shard. So the worker's digest is a part of the action's, and what another worker has
//! made is never taken for the result of this one.
//!
//! For a shard that the farm has compiled before there are two calls: which blobs are missing, and
//! execute, whose answer has the results. Otherwise one more sends what is missing.
//!
//! One thread speaks to the server. Nobody waits for it: a build compiles meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use futures::future::{FutureExt, LocalBoxFuture, Shared as SharedFuture};
use kiln_cache::{Event, Events};
use kiln_farm::{Answer, Answers, Farm, Run};
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::breaker::Breaker;
use crate::endpoint::{Endpoint, EndpointError};
use crate::record::{Digest, MAX_CONTENT};
use crate::server::bazel::{Bazel, digest};
use crate::server::{CALL, Executed, Fault, transfer};
use crate::store::runtime;

/// The name of the worker in the folder of inputs.
const WORKER: &str = "kiln-worker";
const SHARD: &str = "shard";
const RESULTS: &str = "results";
/// A farm that has answered nothing to a whole build is reported if the build took longer.
const SLOW: Duration = Duration::from_secs(5);
/// How often a shard is tried again.
const RETRIES: u32 = 2;
/// The time before it is tried again, the first time.
const PAUSE: Duration = Duration::from_millis(30);
/// How often a shard is offered again to a server that has as much to do as it can, within about
/// 20 s. Some take few calls at once, and nobody waits.
const OFFERS: u32 = 12;
/// The longest time between two offers.
const LONGEST: Duration = Duration::from_secs(3);

/// The worker and the rules of a [`RemoteFarm`].
pub struct FarmOptions {
    /// The program `kiln-worker` for the machines of the farm: the bytes of a static executable.
    pub worker: Arc<[u8]>,
    /// Properties of the platform that the server asks for, such as `OSFamily` and `linux`.
    pub platform: Vec<(String, String)>,
    /// The number of shards that the farm is given at once. The default is 128.
    pub jobs: usize,
    /// The bytes of shards that the farm is given at once. The default is 256 MiB.
    pub memory: u64,
    /// See [`Farm::shard_time`]. The default is 1 s.
    pub shard_time: Duration,
    /// Takes [`Event::Unavailable`] when the farm is given up.
    pub events: Option<Arc<dyn Events>>,
}

impl std::fmt::Debug for FarmOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FarmOptions").field("platform", &self.platform).finish_non_exhaustive()
    }
}

impl FarmOptions {
    /// Creates options with the default limits. `worker` is the bytes of a static executable.
    pub fn new(worker: impl Into<Arc<[u8]>>) -> Self {
        Self {
            worker: worker.into(),
            platform: Vec::new(),
            jobs: 128,
            memory: 256 << 20,
            shard_time: Duration::from_secs(1),
            events: None,
        }
    }

    /// Reads the worker from a file.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Unreadable`], also if the file is not in ELF form. Whether the machines can
    /// run it shows later: a sandbox usually has nothing that a dynamic executable needs.
    pub fn with_worker_file(path: &Path) -> Result<Self, EndpointError> {
        let unreadable =
            |reason: &str| EndpointError::Unreadable(format!("the worker {}: {reason}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| unreadable(&error.to_string()))?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err(unreadable("not an executable in ELF form"));
        }
        Ok(Self::new(bytes))
    }
}

/// Counts of what a [`RemoteFarm`] was given and answered so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FarmTraffic {
    /// Shards that were given to it.
    pub shards: u64,
    /// Shards with results, of which `cached` had been compiled before.
    pub answered: u64,
    /// See `answered`.
    pub cached: u64,
    /// Shards without results.
    pub failed: u64,
    /// Shards that were withdrawn, because the build was faster. When a build has ended, each of
    /// its shards is one of `answered`, `failed` and `withdrawn`.
    pub withdrawn: u64,
    /// Bytes that were sent: those that the server did not have.
    pub sent_bytes: u64,
    /// Bytes of results.
    pub received_bytes: u64,
    /// Calls that failed, with those that were made again.
    pub faults: u64,
}

/// Machines behind a server of Bazel's remote execution API, for `kiln::Compiler::farm`.
///
/// It gives up a server that fails three times in a row, for half a minute, and reports
/// [`Event::Unavailable`]. Equal shards of several builds of this process are executed once; those
/// of several processes as well, if the server joins equal actions.
#[derive(Debug)]
pub struct RemoteFarm {
    shared: Arc<Shared>,
    orders: UnboundedSender<Order>,
    next_run: AtomicU64,
    shard_time: Duration,
}

/// Identifies a shard: the number of the build, and that of the shard in it.
type Id = (u64, usize);

enum Order {
    Compile { id: Id, shard: Vec<u8>, answers: Answers },
    Withdraw(Id),
    WithdrawAll(u64),
}

struct State {
    /// Shards that have no answer and were not withdrawn, with their bytes.
    open: HashMap<Id, u64>,
    /// Sum of their bytes.
    open_bytes: u64,
    /// Whether the thread has ended, and answers nothing any more.
    ended: bool,
    breaker: Breaker,
    traffic: FarmTraffic,
}

impl State {
    /// Closes a shard, because there is an answer, or nobody needs one. Returns whether it was
    /// open: it ends in one way only, whoever is first.
    fn close(&mut self, id: &Id) -> bool {
        let Some(len) = self.open.remove(id) else { return false };
        self.open_bytes -= len;
        true
    }

    /// Closes and counts a shard of which nobody needs an answer.
    fn withdraw(&mut self, id: &Id) {
        self.traffic.withdrawn += u64::from(self.close(id));
    }
}

/// The state that builds share with the thread.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    jobs: usize,
    memory: u64,
    events: Option<Arc<dyn Events>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("traffic", &self.lock().traffic).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a fault, and gives the server up if there were too many.
    fn failed(&self, fault: &Fault) {
        let gave_up = {
            let mut state = self.lock();
            state.traffic.faults += 1;
            state.breaker.failed(fault.temporary, Instant::now())
        };
        if gave_up {
            self.changed.notify_all();
            if let Some(events) = &self.events {
                let reason = format!("of the farm given nothing for now: {}", fault.reason);
                events.report(&Event::Unavailable { reason: &reason });
            }
        }
    }
}

impl RemoteFarm {
    /// Opens the farm behind the server at `endpoint`, which has the scheme `grpc` or `grpcs`. Does
    /// not wait for the server.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the address or a file that belongs to it cannot be used. Whether the
    /// server answers shows later, and is no error.
    pub fn open(endpoint: &Endpoint, options: FarmOptions) -> Result<Self, EndpointError> {
        if !matches!(endpoint.scheme(), "grpc" | "grpcs") {
            let wrong = format!("{}: a farm has an address with grpc:// or grpcs://", endpoint.scheme());
            return Err(EndpointError::Scheme(wrong));
        }
        let FarmOptions { worker, platform, jobs, memory, shard_time, events } = options;
        let state = State {
            open: HashMap::new(),
            open_bytes: 0,
            ended: false,
            breaker: Breaker::default(),
            traffic: FarmTraffic::default(),
        };
        let shared =
            Shared { state: state.into(), changed: Condvar::new(), jobs: jobs.max(1), memory, events };
        let shared = Arc::new(shared);
        let (orders, taken) = unbounded_channel();
        let (ready, opened) = std::sync::mpsc::channel();
        let (own, endpoint) = (Arc::clone(&shared), endpoint.clone());
        let run = move || {
            let _ended = Ended(Arc::clone(&own));
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let guard = runtime.enter();
            match Bazel::new(&endpoint, &endpoint.secrets()) {
                Err(error) => drop(ready.send(Err(error))),
                Ok(server) => {
                    drop(ready.send(Ok(())));
                    let client = Client::new(server, own, worker, platform);
                    tokio::task::LocalSet::new().block_on(&runtime, Rc::new(client).run(taken));
                }
            }
            drop(guard);
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("kiln-farm".into()).spawn(run);
        thread.map_err(|error| EndpointError::Wrong(format!("cannot start a thread: {error}")))?;
        opened.recv().unwrap_or_else(|_| Err(EndpointError::Wrong("internal error".into())))?;
        Ok(Self { shared, orders, next_run: AtomicU64::new(0), shard_time })
    }

    /// Returns the numbers of what was given and answered so far.
    pub fn traffic(&self) -> FarmTraffic {
        self.shared.lock().traffic
    }
}

impl Farm for RemoteFarm {
    fn shard_time(&self) -> Duration {
        self.shard_time
    }

    fn begin(&self, answers: Answers) -> Box<dyn Run> {
        let number = self.next_run.fetch_add(1, Relaxed);
        let (shared, orders) = (Arc::clone(&self.shared), self.orders.clone());
        let has_answered = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&has_answered);
        let answers: Answers = Arc::new(move |shard, answer| {
            noted.store(true, Relaxed);
            answers(shard, answer);
        });
        let (closed, submitted) = (false.into(), None.into());
        Box::new(FarmRun { number, shared, orders, answers, has_answered, submitted, closed })
    }
}

/// The shards of one build.
struct FarmRun {
    number: u64,
    shared: Arc<Shared>,
    orders: UnboundedSender<Order>,
    answers: Answers,
    has_answered: Arc<AtomicBool>,
    /// The time at which the first shard was submitted.
    submitted: Mutex<Option<Instant>>,
    closed: AtomicBool,
}

impl Run for FarmRun {
    fn submit(&self, number: usize, shard: Vec<u8>) -> bool {
        let len = shard.len() as u64;
        let mut state = self.shared.lock();
        loop {
            if self.closed.load(Relaxed) || state.ended || !state.breaker.is_closed(Instant::now()) {
                return false;
            }
            let fits = state.open.is_empty() || state.open_bytes + len <= self.shared.memory;
            if state.open.len() < self.shared.jobs && fits {
                break;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.submitted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        let id = (self.number, number);
        state.open.insert(id, len);
        state.open_bytes += len;
        state.traffic.shards += 1;
        drop(state);
        self.orders.send(Order::Compile { id, shard, answers: Arc::clone(&self.answers) }).is_ok()
    }

    fn withdraw(&self, number: usize) {
        let id = (self.number, number);
        self.shared.lock().withdraw(&id);
        self.shared.changed.notify_all();
        let _ = self.orders.send(Order::Withdraw(id));
    }

    fn close(&self) {
        {
            // Under the lock, so that nobody looks before and waits after.
            let _state = self.shared.lock();
            self.closed.store(true, Relaxed);
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for FarmRun {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            let own = state.open.keys().filter(|(run, _)| *run == self.number);
            let own: Vec<Id> = own.copied().collect();
            own.iter().for_each(|id| state.withdraw(id));
        }
        self.shared.changed.notify_all();
        let _ = self.orders.send(Order::WithdrawAll(self.number));
        let submitted = *self.submitted.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(time) = submitted.map(|submitted| submitted.elapsed())
            && time > SLOW
            && !self.has_answered.load(Relaxed)
            && let Some(events) = &self.shared.events
        {
            let reason = format!("of the farm has answered nothing in {:.1} s", time.as_secs_f64());
            events.report(&Event::Unavailable { reason: &reason });
        }
    }
}

/// Tells builds that the thread has ended, also if it panicked.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// The end of an action: the results and whether they were known, or why there are none.
type End = Result<(Arc<Vec<u8>>, bool), Arc<str>>;

/// The side of the thread.
struct Client {
    server: Bazel,
    shared: Arc<Shared>,
    /// The worker and the command: inputs of every action.
    common: [(Digest, Arc<[u8]>); 2],
    platform: Option<api::Platform>,
    /// Whether the server was asked about itself, and has what is common.
    is_ready: tokio::sync::Mutex<bool>,
    /// Actions that run, each once.
    running: std::cell::RefCell<HashMap<Digest, SharedFuture<LocalBoxFuture<'static, End>>>>,
}

impl Client {
    fn new(
        server: Bazel,
        shared: Arc<Shared>,
        worker: Arc<[u8]>,
        mut platform: Vec<(String, String)>,
    ) -> Self {
        // A server may refuse a list that is not sorted.
        platform.sort();
        let properties = platform.into_iter();
        let properties: Vec<_> =
            properties.map(|(name, value)| api::platform::Property { name, value }).collect();
        let platform = (!properties.is_empty()).then_some(api::Platform { properties });
        #[expect(deprecated, reason = "servers of version 2.0 know no other field")]
        let command = api::Command {
            arguments: vec![format!("./{WORKER}"), SHARD.into(), RESULTS.into()],
            output_files: vec![RESULTS.into()],
            output_paths: vec![RESULTS.into()],
            platform: platform.clone(),
            ..api::Command::default()
        };
        let command: Arc<[u8]> = command.encode_to_vec().into();
        Self {
            server,
            shared,
            common: [worker, command].map(|bytes| (Digest::of(&bytes), bytes)),
            platform,
            is_ready: false.into(),
            running: Default::default(),
        }
    }

    /// Works until the farm and all of its builds are dropped.
    async fn run(self: Rc<Self>, mut orders: UnboundedReceiver<Order>) {
        let mut tasks: HashMap<Id, AbortHandle> = HashMap::new();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Compile { id, shard, answers } => {
                    let task = Rc::clone(&self).answer(id, shard, answers);
                    tasks.insert(id, tokio::task::spawn_local(task).abort_handle());
                }
                Order::Withdraw(id) => {
                    if let Some(task) = tasks.remove(&id) {
                        task.abort();
                    }
                }
                Order::WithdrawAll(run) => tasks.retain(|(of, _), task| {
                    if *of == run {
                        task.abort();
                    }
                    *of != run
                }),
            }
            tasks.retain(|_, task| !task.is_finished());
        }
    }

    async fn answer(self: Rc<Self>, id: Id, shard: Vec<u8>, answers: Answers) {
        let action = self.action(shard);
        let name = action.digest;
        let running = self.running.borrow().get(&name).cloned();
        let running = running.unwrap_or_else(|| {
            let own = Rc::clone(&self);
            let running = async move { own.compile(&action).await }.boxed_local().shared();
            self.running.borrow_mut().insert(name, running.clone());
            running
        });
        let guard = Joined { client: &self, name, running: Some(running.clone()) };
        let ended = running.await;
        drop(guard);
        {
            let mut state = self.shared.lock();
            if !state.close(&id) {
                return;
            }
            let traffic = &mut state.traffic;
            match &ended {
                Ok((bytes, cached)) => {
                    traffic.answered += 1;
                    traffic.cached += u64::from(*cached);
                    traffic.received_bytes += bytes.len() as u64;
                }
                Err(_) => traffic.failed += 1,
            }
        }
        self.shared.changed.notify_all();
        let answer = match ended {
            Ok((bytes, cached)) => Answer::Results { bytes: Arc::unwrap_or_clone(bytes), cached },
            Err(reason) => Answer::Failed(reason.to_string()),
        };
        answers(id.1, answer);
    }

    /// Makes the messages of a shard's action.
    fn action(&self, shard: Vec<u8>) -> Action {
        let [(worker, _), (command, _)] = &self.common;
        let shard = (Digest::of(&shard), shard);
        let file = |name: &str, of: &Digest, is_executable| api::FileNode {
            name: name.into(),
            digest: Some(digest(of)),
            is_executable,
            ..api::FileNode::default()
        };
        // In order of names.
        let files = vec![file(WORKER, worker, true), file(SHARD, &shard.0, false)];
        let folder = api::Directory { files, ..api::Directory::default() }.encode_to_vec();
        let folder = (Digest::of(&folder), folder);
        let action = api::Action {
            command_digest: Some(digest(command)),
            input_root_digest: Some(digest(&folder.0)),
            platform: self.platform.clone(),
            ..api::Action::default()
        };
        let action = action.encode_to_vec();
        let action = (Digest::of(&action), action);
        Action { digest: action.0, inputs: [shard, folder, action] }
    }

    /// Compiles a shard, and tries again after a short time if that fails and may succeed.
    async fn compile(&self, action: &Action) -> End {
        let (mut tries, mut offers, mut again) = (0_u32, 0_u32, false);
        loop {
            let fault = match self.compile_once(action, again).await {
                Ok(Some(Output::Results(bytes, cached))) => {
                    self.shared.lock().breaker.succeeded();
                    return Ok((Arc::new(bytes), cached));
                }
                // A worker that fails at one shard may compile others, and fails at this one again.
                Ok(Some(Output::Failed(reason))) => {
                    self.shared.failed(&Fault::temporary(reason.clone()));
                    return Err(reason.into());
                }
                // What the server knows of the action is of no use: it is to be executed again.
                Ok(None) => {
                    again = true;
                    Fault::temporary("results that are not there, or are not what they are said to be")
                }
                Err(fault) => fault,
            };
            let is_offered_again = fault.is_full && offers < OFFERS;
            let step = if is_offered_again {
                self.shared.lock().traffic.faults += 1;
                offers += 1;
                offers
            } else {
                self.shared.failed(&fault);
                let is_given_up = !self.shared.lock().breaker.is_closed(Instant::now());
                if is_given_up || !fault.temporary || tries == RETRIES {
                    return Err(fault.reason.into());
                }
                tries += 1;
                tries - 1
            };
            let random = f64::from(crate::bits::random()[0]) / 255.0;
            let pause = PAUSE.mul_f64(f64::from(1 << step)).min(LONGEST);
            tokio::time::sleep(pause.mul_f64(0.5 + random)).await;
        }
    }

    /// Compiles a shard. Returns `None` if the server does not have the results.
    async fn compile_once(&self, action: &Action, again: bool) -> Result<Option<Output>, Fault> {
        let mut has_common = false;
        for _ in 0..2 {
            self.prepare(has_common).await?;
            self.store(&action.inputs).await?;
            match self.server.execute(&action.digest, again, RESULTS).await? {
                Executed::Done(result, cached) => {
                    let limit = action.max_results();
                    let output = self.server.output(&result, RESULTS, limit);
                    let output = within(transfer(limit), output).await?;
                    return Ok(output.map(|bytes| Output::Results(bytes, cached)));
                }
                // It has removed an input to make room, perhaps the worker.
                Executed::Missing => has_common = true,
                Executed::Failed(reason) => return Ok(Some(Output::Failed(reason))),
            }
        }
        Err(Fault::temporary("the server does not keep the inputs of an action"))
    }

    /// Asks the server about itself, and stores what is common to all actions, once or `again`.
    async fn prepare(&self, again: bool) -> Result<(), Fault> {
        let mut is_ready = self.is_ready.lock().await;
        // The one before may have found out that there is no server.
        if !self.shared.lock().breaker.is_closed(Instant::now()) {
            return Err(Fault::temporary("the server was given up"));
        }
        if *is_ready && !again {
            return Ok(());
        }
        within(CALL, self.server.executes()).await?;
        self.store(&self.common).await?;
        *is_ready = true;
        Ok(())
    }

    async fn store<B: AsRef<[u8]>>(&self, contents: &[(Digest, B)]) -> Result<(), Fault> {
        let limit = transfer(contents.iter().map(|(digest, _)| digest.len).sum());
        let sent = within(limit, self.server.store(contents)).await?;
        self.shared.lock().traffic.sent_bytes += sent;
        Ok(())
    }
}

/// The output of an action.
enum Output {
    /// Bytes of results, and whether they were known.
    Results(Vec<u8>, bool),
    /// The worker did not succeed: the reason.
    Failed(String),
}

/// The messages of an action.
struct Action {
    digest: Digest,
    /// The shard, the folder of inputs, and the action itself.
    inputs: [(Digest, Vec<u8>); 3],
}

impl Action {
    /// Returns the most bytes that the results may have: code is a few times as long as its IR, and
    /// a server must not fill the memory of a build.
    fn max_results(&self) -> u64 {
        (64 * self.inputs[0].0.len).clamp(1 << 20, MAX_CONTENT)
    }
}

/// A task that waits for an action. The last one that ends forgets the action, which stops it.
struct Joined<'a> {
    client: &'a Client,
    name: Digest,
    running: Option<SharedFuture<LocalBoxFuture<'static, End>>>,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.running = None;
        let mut running = self.client.running.borrow_mut();
        let is_last = running.get(&self.name).is_some_and(|running| {
            // One is in the table.
            running.peek().is_some() || running.strong_count().is_none_or(|count| count <= 1)
        });
        if is_last {
            running.remove(&self.name);
        }
    }
}

/// Waits for a call, at most this long.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let answer = tokio::time::timeout(limit, call).await;
    answer.unwrap_or_else(|_| Err(Fault::temporary(format!("no answer in {:.1} s", limit.as_secs_f64()))))
}
