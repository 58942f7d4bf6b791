//! Calls of gRPC, for threads that send.

use std::net::SocketAddr;

use futures::TryStreamExt;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Status};
use watchpost::protocol::wire::jaeger::storage::v1;
use watchpost::server::grpc::storage_v1::archive_span_reader_plugin_client::ArchiveSpanReaderPluginClient;

use crate::appliance::PATIENCE;

/// One connection, made when it is needed and made again when the process was.
pub struct Grpc {
    runtime: tokio::runtime::Runtime,
    channel: Option<(SocketAddr, Channel)>,
}

impl Grpc {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            runtime: runtime.expect("a runtime"),
            channel: None,
        }
    }

    fn channel(&mut self, address: SocketAddr) -> Channel {
        match &self.channel {
            Some((known, channel)) if *known == address => channel.clone(),
            _ => {
                let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
                let endpoint = endpoint.expect("an address").timeout(PATIENCE);
                // A lazy channel wants to be made where it will run.
                let _entered = self.runtime.enter();
                let channel = endpoint.connect_lazy();
                self.channel = Some((address, channel.clone()));
                channel
            }
        }
    }

    /// One call of a method, such as `/package.Service/Method`.
    pub fn call<M, R>(
        &mut self,
        address: SocketAddr,
        method: &'static str,
        message: M,
    ) -> Result<R, Status>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel(address));
        let answer = self.runtime.block_on(async {
            client
                .ready()
                .await
                .map_err(|e| Status::unavailable(e.to_string()))?;
            let codec: tonic_prost::ProstCodec<M, R> = tonic_prost::ProstCodec::default();
            let path = method.parse().expect("a path");
            client
                .unary(tonic::Request::new(message), path, codec)
                .await
        });
        answer.map(tonic::Response::into_inner)
    }

    /// The spans that the archive has of a trace.
    pub fn archived(&mut self, address: SocketAddr, trace: u128) -> Result<Vec<u64>, Status> {
        let channel = self.channel(address);
        self.runtime.block_on(async {
            let mut reader = ArchiveSpanReaderPluginClient::new(channel);
            let request = v1::GetTraceRequest {
                trace_id: trace.to_be_bytes().to_vec().into(),
                ..Default::default()
            };
            let chunks = match reader.get_archive_trace(request).await {
                Ok(chunks) => chunks.into_inner().try_collect::<Vec<_>>().await?,
                Err(status) if status.code() == Code::NotFound => Vec::new(),
                Err(status) => return Err(status),
            };
            let spans = chunks.into_iter().flat_map(|chunk| chunk.spans);
            let id = |span: watchpost::protocol::wire::jaeger::api_v2::Span| {
                span.span_id[..].try_into().map_or(0, u64::from_be_bytes)
            };
            let mut ids: Vec<u64> = spans.map(id).collect();
            ids.sort_unstable();
            Ok(ids)
        })
    }
}

/// Whether a status says nothing of what became of the message: the process is going, or
/// has no room. Jaeger's door says both with `RESOURCE_EXHAUSTED`, which others have for what is too large.
pub fn says_nothing(status: &Status) -> bool {
    let is_going = status.code() == Code::ResourceExhausted
        && ["shutting down", "store has failed", "no space left"]
            .iter()
            .any(|told| status.message().contains(told));
    is_going
        || matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted
        )
}
