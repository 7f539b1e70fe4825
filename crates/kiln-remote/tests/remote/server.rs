//! A cache of Bazel's remote APIs in this process, which fails as it is told.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::build::bazel::semver;
use bazel_remote_apis::google::bytestream as bytes;
use bazel_remote_apis::google::rpc;
use futures::StreamExt;
use futures::stream::{self, Stream};
use tokio::sync::Notify;
use tonic::{Code, Request, Response, Status, Streaming};

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error of this code.
    Error(Code),
    /// No answer.
    Hang,
    /// One bit of what is sent differs.
    Alter,
    /// Half of what is sent.
    Truncate,
    /// The answer to another question.
    Swap,
    /// The server dies: connections end, and nobody listens any more.
    Die,
    /// A stream of an action that is cut after its first message.
    Cut,
    /// A result of an action without its output.
    NoOutput,
    /// A command that ends with this code.
    Exit(i32),
    /// All blobs are gone.
    Forget,
}

/// The content of the server, and the calls at which it fails.
#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) actions: HashMap<String, api::ActionResult>,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) machines: crate::execute::Machines,
    /// Calls so far.
    pub(crate) calls: usize,
    /// Names of the calls so far.
    pub(crate) log: Vec<&'static str>,
    /// Calls, from this one on, to this one, at which it fails.
    pub(crate) faults: std::ops::Range<usize>,
    pub(crate) fault: Option<Fault>,
    /// The time that each call takes.
    pub(crate) delay: Duration,
    pub(crate) token: Option<String>,
    /// The digest function that it says it has.
    pub(crate) function: i32,
    /// The oldest version of the protocol that it says it speaks.
    pub(crate) oldest: i32,
    /// Bytes of contents that it takes in one call.
    pub(crate) batch: i64,
    /// The longest chain of calls, of which each began after the one before it had ended.
    pub(crate) round_trips: usize,
}

/// A server, which ends when this is dropped.
pub(crate) struct TestServer {
    service: Service,
    pub(crate) inside: Arc<Mutex<Inside>>,
    pub(crate) address: SocketAddr,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.service.end.notify_one();
    }
}

/// The part that answers calls.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) inside: Arc<Mutex<Inside>>,
    /// Ends the server.
    end: Arc<Notify>,
}

/// A certificate and its key, in PEM form.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl TestServer {
    /// Starts a server on a port of its own.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0", None)
    }

    /// Starts a server at an address, with TLS if there is an identity.
    pub(crate) fn start_at(address: &str, identity: Option<&Identity>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let inside = Inside {
            function: api::digest_function::Value::Sha256 as i32,
            oldest: 2,
            batch: 200_000,
            ..Inside::default()
        };
        let (inside, end) = (Arc::new(Mutex::new(inside)), Arc::new(Notify::new()));
        let service = Service { inside: Arc::clone(&inside), end: Arc::clone(&end) };
        let server = Self { service: service.clone(), inside, address: listener.local_addr().unwrap() };
        let mut builder = tonic::transport::Server::builder();
        if let Some(Identity { certificate, key }) = identity {
            let identity = tonic::transport::Identity::from_pem(certificate, key);
            let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
            builder = builder.tls_config(tls).unwrap();
        }
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let own = service;
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let incoming = stream::unfold(listener, |listener| async {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    // As servers do: otherwise small answers wait for 40 ms.
                    let _ = accepted.as_ref().map(|stream| stream.set_nodelay(true));
                    Some((accepted, listener))
                });
                let served = builder
                    .add_service(api::action_cache_server::ActionCacheServer::new(own.clone()))
                    .add_service(api::capabilities_server::CapabilitiesServer::new(own.clone()))
                    .add_service(
                        api::content_addressable_storage_server::ContentAddressableStorageServer::new(
                            own.clone(),
                        ),
                    )
                    .add_service(api::execution_server::ExecutionServer::new(own.clone()))
                    .add_service(bytes::byte_stream_server::ByteStreamServer::new(own))
                    .serve_with_incoming(incoming);
                tokio::select! {
                    served = served => served.unwrap(),
                    () = end.notified() => {}
                }
            });
            // The tasks of connections end with the run-time, so the connections do.
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("grpc://{}/main", self.address)
    }

    pub(crate) fn endpoint(&self) -> kiln_remote::Endpoint {
        kiln_remote::Endpoint::with_variables(&self.url(), |_| None).unwrap()
    }

    /// Lets calls of these numbers fail; the next call has number 0.
    pub(crate) fn fail(&self, calls: std::ops::Range<usize>, fault: Fault) {
        let mut inside = self.inside.lock().unwrap();
        (inside.calls, inside.faults, inside.fault) = (0, calls, Some(fault));
        inside.log.clear();
        inside.round_trips = 0;
    }
}

impl Service {
    /// Counts a call. Returns how what is sent is to be damaged.
    pub(crate) async fn call<T>(
        &self,
        name: &'static str,
        request: &Request<T>,
    ) -> Result<Option<Fault>, Status> {
        let (fault, delay, depth) = {
            let mut inside = self.inside.lock().unwrap();
            let number = inside.calls;
            let depth = inside.round_trips + 1;
            inside.calls += 1;
            inside.log.push(name);
            if let Some(token) = &inside.token {
                let given = request.metadata().get("authorization").map(|value| value.as_bytes().to_vec());
                if given != Some(format!("Bearer {token}").into_bytes()) {
                    return Err(Status::unauthenticated("a token is missing"));
                }
            }
            (inside.fault.filter(|_| inside.faults.contains(&number)), inside.delay, depth)
        };
        tokio::time::sleep(delay).await;
        {
            let mut inside = self.inside.lock().unwrap();
            inside.round_trips = inside.round_trips.max(depth);
        }
        match fault {
            Some(Fault::Die) => {
                self.end.notify_one();
                std::future::pending().await
            }
            Some(Fault::Error(code)) => Err(Status::new(code, "told to fail")),
            Some(Fault::Hang) => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Err(Status::cancelled("too late"))
            }
            fault => Ok(fault),
        }
    }
}

/// Damages what is sent.
pub(crate) fn damage(bytes: &mut Vec<u8>, fault: Option<Fault>) {
    match fault {
        Some(Fault::Alter) => {
            let place = bytes.len() / 2;
            bytes[place] ^= 4;
        }
        Some(Fault::Truncate) => bytes.truncate(bytes.len() / 2),
        _ => {}
    }
}

fn hash(digest: Option<api::Digest>) -> String {
    digest.unwrap_or_default().hash
}

#[tonic::async_trait]
impl api::action_cache_server::ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<api::GetActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        let fault = self.call("get action", &request).await?;
        let inside = self.inside.lock().unwrap();
        let hash = hash(request.into_inner().action_digest);
        let mut found = inside.actions.get(&hash).cloned().ok_or_else(|| Status::not_found("no action"))?;
        damage(&mut found.stdout_raw, fault);
        if fault == Some(Fault::Swap) {
            let mut others: Vec<_> = inside.actions.iter().filter(|(of, _)| **of != hash).collect();
            others.sort_unstable_by_key(|(of, _)| *of);
            if let Some((_, other)) = others.first() {
                found = (*other).clone();
            }
        }
        Ok(Response::new(found))
    }

    async fn update_action_result(
        &self,
        request: Request<api::UpdateActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        self.call("update action", &request).await?;
        let request = request.into_inner();
        let result = request.action_result.unwrap();
        let mut inside = self.inside.lock().unwrap();
        // A record never comes before its content.
        for file in &result.output_files {
            assert!(inside.blobs.contains_key(&file.digest.as_ref().unwrap().hash));
        }
        inside.actions.insert(hash(request.action_digest), result.clone());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl api::capabilities_server::Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<api::GetCapabilitiesRequest>,
    ) -> Result<Response<api::ServerCapabilities>, Status> {
        self.call("capabilities", &request).await?;
        let inside = self.inside.lock().unwrap();
        let cache = api::CacheCapabilities {
            digest_functions: vec![inside.function],
            max_batch_total_size_bytes: inside.batch,
            ..api::CacheCapabilities::default()
        };
        let oldest = semver::SemVer { major: inside.oldest, ..semver::SemVer::default() };
        let exec_enabled = inside.machines.is_there;
        let execution = api::ExecutionCapabilities { exec_enabled, ..Default::default() };
        Ok(Response::new(api::ServerCapabilities {
            cache_capabilities: Some(cache),
            execution_capabilities: Some(execution),
            low_api_version: Some(oldest),
            ..api::ServerCapabilities::default()
        }))
    }
}

type Sent<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl api::content_addressable_storage_server::ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<api::FindMissingBlobsRequest>,
    ) -> Result<Response<api::FindMissingBlobsResponse>, Status> {
        self.call("find missing", &request).await?;
        let inside = self.inside.lock().unwrap();
        let mut digests = request.into_inner().blob_digests;
        digests.retain(|digest| !inside.blobs.contains_key(&digest.hash));
        Ok(Response::new(api::FindMissingBlobsResponse { missing_blob_digests: digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<api::BatchUpdateBlobsRequest>,
    ) -> Result<Response<api::BatchUpdateBlobsResponse>, Status> {
        self.call("update blobs", &request).await?;
        let requests = request.into_inner().requests;
        let mut inside = self.inside.lock().unwrap();
        assert!(requests.iter().map(|part| part.data.len() as i64).sum::<i64>() <= inside.batch);
        for part in requests {
            inside.blobs.insert(hash(part.digest), part.data);
        }
        Ok(Response::new(api::BatchUpdateBlobsResponse::default()))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<api::BatchReadBlobsRequest>,
    ) -> Result<Response<api::BatchReadBlobsResponse>, Status> {
        let fault = self.call("read blobs", &request).await?;
        let inside = self.inside.lock().unwrap();
        let parts = request.into_inner().digests.into_iter().map(|digest| {
            let found = inside.blobs.get(&digest.hash).cloned();
            let code = if found.is_some() { 0 } else { Code::NotFound as i32 };
            let mut data = found.unwrap_or_default();
            damage(&mut data, fault);
            let status = Some(rpc::Status { code, ..rpc::Status::default() });
            api::batch_read_blobs_response::Response { digest: Some(digest), data, compressor: 0, status }
        });
        let mut responses: Vec<_> = parts.collect();
        if fault == Some(Fault::Swap) {
            let data: Vec<Vec<u8>> = responses.iter().map(|part| part.data.clone()).rev().collect();
            responses.iter_mut().zip(data).for_each(|(part, data)| part.data = data);
        }
        responses.reverse();
        Ok(Response::new(api::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Sent<api::GetTreeResponse>;
    async fn get_tree(
        &self,
        _: Request<api::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn split_blob(
        &self,
        _: Request<api::SplitBlobRequest>,
    ) -> Result<Response<api::SplitBlobResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type GetChunkMappingStream = Sent<api::GetChunkMappingResponse>;
    async fn get_chunk_mapping(
        &self,
        _: Request<api::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn splice_blob(
        &self,
        _: Request<api::SpliceBlobRequest>,
    ) -> Result<Response<api::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<api::RegisterChunkMappingRequest>>,
    ) -> Result<Response<api::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl bytes::byte_stream_server::ByteStream for Service {
    type ReadStream = Sent<bytes::ReadResponse>;
    async fn read(&self, request: Request<bytes::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let fault = self.call("read stream", &request).await?;
        let name = request.into_inner().resource_name;
        let hash = name.strip_prefix("main/blobs/").unwrap().split('/').next().unwrap();
        let mut found = self.inside.lock().unwrap().blobs.get(hash).cloned().ok_or(Status::not_found(""))?;
        damage(&mut found, fault);
        let parts: Vec<_> =
            found.chunks(60_000).map(|part| Ok(bytes::ReadResponse { data: part.to_vec() })).collect();
        Ok(Response::new(Box::pin(stream::iter(parts))))
    }

    async fn write(
        &self,
        request: Request<Streaming<bytes::WriteRequest>>,
    ) -> Result<Response<bytes::WriteResponse>, Status> {
        self.call("write stream", &request).await?;
        let mut parts = request.into_inner();
        let (mut name, mut data, mut finished) = (String::new(), Vec::new(), false);
        while let Some(part) = parts.next().await {
            let part = part?;
            if name.is_empty() {
                name = part.resource_name;
            }
            assert!(part.write_offset as usize == data.len() && !finished);
            data.extend_from_slice(&part.data);
            finished = part.finish_write;
        }
        assert!(finished);
        let hash = name.split('/').rev().nth(1).unwrap().to_owned();
        let committed_size = data.len() as i64;
        self.inside.lock().unwrap().blobs.insert(hash, data);
        Ok(Response::new(bytes::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<bytes::QueryWriteStatusRequest>,
    ) -> Result<Response<bytes::QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
