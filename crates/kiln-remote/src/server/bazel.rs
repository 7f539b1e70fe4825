//! Caches of Bazel's remote APIs (remote execution API, version 2): an action cache, and storage of
//! contents by hash.
//!
//! The name of a record is the digest of an action that nobody executes: its salt is the name. The
//! action's result has the content as its only output file, so that a server keeps both alike, and
//! the record as its standard output. Reading many contents is one call for each batch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use api::action_cache_client::ActionCacheClient;
use api::capabilities_client::CapabilitiesClient;
use api::content_addressable_storage_client::ContentAddressableStorageClient;
use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{ReadRequest, WriteRequest};
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Status};

use super::call::{CALL, Fault, ServerInfo};
use crate::bits::{hex, random};
use crate::endpoint::{Endpoint, EndpointError, Secrets};
use crate::record::{Digest, Name};

/// Bytes of contents in one call, unless the server takes fewer. gRPC's limit for a message is
/// 4 MiB; smaller calls show sooner whether a server is too slow.
const BATCH: u64 = 1 << 20;
/// The most bytes that a message of a server may have.
pub(super) const MESSAGE: usize = 8 << 20;
/// Calls at once. All share a connection, and what is more than the server takes waits there, so a
/// whole build's questions take one round trip of most servers.
const CALLS: usize = 512;
/// Streams of large contents at once.
const STREAMS: usize = 8;
/// Bytes in one message of a stream.
const CHUNK: usize = 1 << 20;

pub(super) type Service = InterceptedService<Channel, Login>;

/// Adds the token to each call.
#[derive(Clone)]
pub(super) struct Login(Option<MetadataValue<Ascii>>);

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub(crate) struct Bazel {
    service: Service,
    instance: String,
    /// Bytes of contents that the server takes in one call.
    batch: AtomicU64,
    secrets: Secrets,
}

impl std::fmt::Debug for Bazel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bazel").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Returns a digest as messages have it.
pub(crate) fn digest(digest: &Digest) -> api::Digest {
    api::Digest { hash: digest.hex(), size_bytes: digest.len.cast_signed() }
}

/// Returns the digest of the action of this name.
fn action(name: &Name) -> api::Digest {
    let empty = digest(&Digest::of(b""));
    let action = api::Action {
        command_digest: Some(empty.clone()),
        input_root_digest: Some(empty),
        salt: [b"kiln-cache 1 ".as_slice(), &name.to_bytes()].concat(),
        ..api::Action::default()
    };
    digest(&Digest::of(&action.encode_to_vec()))
}

/// Divides items into parts of at most `limit` bytes. A larger item is a part by itself.
fn batches<T>(items: &[T], limit: u64, len: impl Fn(&T) -> u64) -> Vec<&[T]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, item) in items.iter().enumerate() {
        if index > start && bytes + len(item) > limit {
            parts.push(&items[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += len(item);
    }
    if start < items.len() {
        parts.push(&items[start..]);
    }
    parts
}

pub(super) const SHA256: i32 = api::digest_function::Value::Sha256 as i32;

impl Bazel {
    pub(crate) fn new(endpoint: &Endpoint, secrets: &Secrets) -> Result<Self, EndpointError> {
        let tls = endpoint.scheme() == "grpcs";
        let address = endpoint.address(if tls { 443 } else { 80 })?;
        let wrong = |error: &dyn std::error::Error| EndpointError::Wrong(secrets.hide(&error.to_string()));
        let uri = format!("{}://{address}", if tls { "https" } else { "http" });
        let channel = Channel::from_shared(uri).map_err(|error| wrong(&error))?;
        let mut channel = channel.connect_timeout(CALL).tcp_nodelay(true).initial_stream_window_size(4 << 20);
        if tls {
            let read = |name: &str| {
                let Some(path) = endpoint.variable(name) else { return Ok(None) };
                let read = std::fs::read(&path);
                read.map(Some).map_err(|error| EndpointError::Unreadable(format!("{name} {path}: {error}")))
            };
            let mut config = ClientTlsConfig::new().with_native_roots();
            if let Some(file) = read("KILN_REMOTE_CA_FILE")? {
                config = config.ca_certificate(Certificate::from_pem(file));
            }
            if let Some((certificate, key)) =
                read("KILN_REMOTE_CERT_FILE")?.zip(read("KILN_REMOTE_KEY_FILE")?)
            {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            channel = channel.tls_config(config).map_err(|error| wrong(&error))?;
        }
        let token = endpoint.token().map(|token| format!("Bearer {token}").parse());
        let token = token.transpose().map_err(|_| {
            EndpointError::Wrong("the token has characters that a header must not have".into())
        })?;
        let token = token.map(|mut token: MetadataValue<Ascii>| {
            token.set_sensitive(true);
            token
        });
        Ok(Self {
            service: InterceptedService::new(channel.connect_lazy(), Login(token)),
            instance: endpoint.path().trim_matches('/').into(),
            batch: AtomicU64::new(BATCH),
            secrets: secrets.clone(),
        })
    }

    /// Returns the fault of a call, without secrets.
    pub(super) fn fault(&self, status: &Status) -> Fault {
        let temporary = !matches!(
            status.code(),
            Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
                | Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::ResourceExhausted
        );
        let mut reason = format!("{:?}: {}", status.code(), status.message());
        let mut source = std::error::Error::source(status);
        while let Some(error) = source {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = error.source();
        }
        let is_full = status.code() == Code::ResourceExhausted;
        Fault { temporary, is_full, reason: self.secrets.line(&reason) }
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    fn actions(&self) -> ActionCacheClient<Service> {
        ActionCacheClient::new(self.service.clone()).max_decoding_message_size(MESSAGE)
    }

    fn storage(&self) -> ContentAddressableStorageClient<Service> {
        ContentAddressableStorageClient::new(self.service.clone()).max_decoding_message_size(MESSAGE)
    }

    fn streams(&self) -> ByteStreamClient<Service> {
        ByteStreamClient::new(self.service.clone()).max_decoding_message_size(MESSAGE)
    }

    pub(crate) async fn record(&self, name: &Name) -> Result<Option<Vec<u8>>, Fault> {
        let request = api::GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action(name)),
            inline_stdout: true,
            digest_function: SHA256,
            ..api::GetActionResultRequest::default()
        };
        match self.actions().get_action_result(request).await {
            Ok(result) => Ok(Some(result.into_inner().stdout_raw)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.fault(&status)),
        }
    }

    /// Reads contents. Several small ones are one call, a large one is a stream.
    pub(crate) async fn contents(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let mut all = Vec::with_capacity(digests.len());
        for batch in batches(digests, self.batch(), |digest| digest.len) {
            match batch {
                [large] if large.len > self.batch() => all.push(self.stream_down(large).await?),
                batch => all.extend(self.read_batch(batch).await?),
            }
        }
        Ok(all)
    }

    async fn read_batch(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let request = api::BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: digests.iter().map(digest).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: SHA256,
        };
        let response =
            self.storage().batch_read_blobs(request).await.map_err(|status| self.fault(&status))?;
        // Found by their hashes: a server may answer in any order. Whoever uses the contents checks
        // them.
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for part in response.into_inner().responses {
            let code = part.status.map_or(0, |status| status.code);
            if let (0, Some(digest)) = (code, part.digest) {
                found.push((digest.hash, part.data));
            }
        }
        let find = |digest: &Digest| {
            let hash = digest.hex();
            let place = found.iter().position(|(of, _)| *of == hash)?;
            let data = std::mem::take(&mut found[place].1);
            (data.len() as u64 == digest.len).then_some(data)
        };
        Ok(digests.iter().map(find).collect())
    }

    async fn stream_down(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Fault> {
        let request = ReadRequest {
            resource_name: self.resource(&format!("blobs/{}/{}", digest.hex(), digest.len)),
            read_offset: 0,
            read_limit: 0,
        };
        let mut stream = match self.streams().read(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(self.fault(&status)),
        };
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(|status| self.fault(&status))? {
            if bytes.len() as u64 + part.data.len() as u64 > digest.len {
                return Ok(None);
            }
            bytes.extend_from_slice(&part.data);
        }
        Ok(Some(bytes))
    }

    fn resource(&self, rest: &str) -> String {
        if self.instance.is_empty() { rest.into() } else { format!("{}/{rest}", self.instance) }
    }

    /// Stores contents that the server does not have. Returns the bytes that were sent.
    pub(crate) async fn store<B: AsRef<[u8]>>(&self, contents: &[(Digest, B)]) -> Result<u64, Fault> {
        let request = api::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: contents.iter().map(|(of, _)| digest(of)).collect(),
            digest_function: SHA256,
        };
        let missing =
            self.storage().find_missing_blobs(request).await.map_err(|status| self.fault(&status))?;
        let missing = missing.into_inner().missing_blob_digests;
        let missing = contents.iter().filter(|(of, _)| {
            let hash = of.hex();
            missing.iter().any(|missing| missing.hash == hash)
        });
        let missing: Vec<_> = missing.collect();
        let sent = missing.iter().map(|(of, _)| of.len).sum();
        let (small, large): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(of, _)| of.len <= self.batch());
        // The limit may have become known after the entries were chosen.
        for small in batches(&small, self.batch(), |(of, _)| of.len) {
            let requests = small.iter().map(|(of, bytes)| api::batch_update_blobs_request::Request {
                digest: Some(digest(of)),
                data: bytes.as_ref().to_vec(),
                compressor: 0,
            });
            let request = api::BatchUpdateBlobsRequest {
                instance_name: self.instance.clone(),
                requests: requests.collect(),
                digest_function: SHA256,
            };
            let stored = self.storage().batch_update_blobs(request).await;
            for part in stored.map_err(|status| self.fault(&status))?.into_inner().responses {
                if let Some(status) = part.status.filter(|status| status.code != 0) {
                    return Err(self.fault(&Status::new(Code::from(status.code), status.message)));
                }
            }
        }
        let streams = large.iter().map(|(of, bytes)| self.stream_up(of, bytes.as_ref()));
        stream::iter(streams).buffer_unordered(STREAMS).try_collect::<()>().await?;
        Ok(sent)
    }

    async fn stream_up(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Fault> {
        let upload = hex(&random()[..16]);
        let uuid = [&upload[..8], &upload[8..12], &upload[12..16], &upload[16..20], &upload[20..]].join("-");
        let resource = self.resource(&format!("uploads/{uuid}/blobs/{}/{}", digest.hex(), digest.len));
        let last = bytes.len().div_ceil(CHUNK).saturating_sub(1);
        let parts: Vec<WriteRequest> = bytes
            .chunks(CHUNK)
            .enumerate()
            .map(|(index, chunk)| WriteRequest {
                resource_name: if index == 0 { resource.clone() } else { String::new() },
                write_offset: (index * CHUNK) as i64,
                finish_write: index == last,
                data: chunk.to_vec(),
            })
            .collect();
        let written = self.streams().write(stream::iter(parts)).await;
        let committed = written.map_err(|status| self.fault(&status))?.into_inner().committed_size;
        // -1 means that the server has it already.
        if committed == -1 || committed.cast_unsigned() == digest.len {
            Ok(())
        } else {
            Err(Fault::temporary(format!("{committed} of {} bytes stored", digest.len)))
        }
    }

    pub(crate) async fn set_record(
        &self,
        name: &Name,
        record: Vec<u8>,
        content: &Digest,
    ) -> Result<(), Fault> {
        let result = api::ActionResult {
            output_files: vec![api::OutputFile {
                path: "entry".into(),
                digest: Some(digest(content)),
                ..api::OutputFile::default()
            }],
            stdout_raw: record,
            ..api::ActionResult::default()
        };
        let request = api::UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action(name)),
            action_result: Some(result),
            results_cache_policy: None,
            digest_function: SHA256,
        };
        self.actions().update_action_result(request).await.map(drop).map_err(|status| self.fault(&status))
    }

    pub(crate) fn batch(&self) -> u64 {
        self.batch.load(Relaxed)
    }

    pub(crate) fn at_once(&self) -> usize {
        CALLS
    }

    /// Asks for the server's capabilities, and keeps to its limits from now on.
    pub(crate) async fn info(&self) -> Result<ServerInfo, Fault> {
        let capabilities = self.capabilities().await?;
        let version = |version: Option<bazel_remote_apis::build::bazel::semver::SemVer>| {
            version.map_or_else(|| "unknown".into(), |version| format!("{}.{}", version.major, version.minor))
        };
        let update = capabilities.cache_capabilities.and_then(|cache| cache.action_cache_update_capabilities);
        let update = update.is_some_and(|update| update.update_enabled);
        let properties = vec![
            ("protocol", "Bazel remote execution API".into()),
            ("version", version(capabilities.high_api_version)),
            ("writable", if update { "yes" } else { "no" }.into()),
            ("batch", self.batch().to_string()),
        ];
        Ok(ServerInfo { properties })
    }

    /// Asks for the server's capabilities, which are those of a cache of this protocol.
    pub(super) async fn capabilities(&self) -> Result<api::ServerCapabilities, Fault> {
        let request = api::GetCapabilitiesRequest { instance_name: self.instance.clone() };
        let client = CapabilitiesClient::new(self.service.clone()).max_decoding_message_size(MESSAGE);
        let capabilities =
            { client }.get_capabilities(request).await.map_err(|status| self.fault(&status))?;
        let capabilities = capabilities.into_inner();
        let Some(cache) = &capabilities.cache_capabilities else {
            return Err(Fault::lasting("the server is not a cache"));
        };
        if !cache.digest_functions.contains(&SHA256) {
            return Err(Fault::lasting("the server does not name contents by SHA-256"));
        }
        if let Ok(limit @ 1..) = u64::try_from(cache.max_batch_total_size_bytes) {
            self.batch.store(limit.saturating_sub(64 << 10).clamp(64 << 10, BATCH), Relaxed);
        }
        let low = capabilities.low_api_version.as_ref().map_or(2, |version| version.major);
        if low > 2 {
            return Err(Fault::lasting(format!("the server speaks only version {low} and later")));
        }
        Ok(capabilities)
    }
}
