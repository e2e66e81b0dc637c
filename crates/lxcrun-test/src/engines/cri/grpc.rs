//! A gRPC call over a socket file, without a library of its own: one request, one answer.

use std::path::Path;

use h2::client::handshake;
use http::{HeaderMap, Request};
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::net::UnixStream;

use crate::DEADLINE;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Calls a method such as `runtime.v1.RuntimeService/Version`; the error is the server's, with its code.
pub fn call<A: Message + Default>(socket: &Path, method: &str, request: &impl Message) -> Result<A, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = runtime.block_on(async {
        tokio::time::timeout(DEADLINE, unary(socket, method, frame(request)))
            .await
            .unwrap_or_else(|_| Err("no answer".into()))
    });
    let answer = answer.map_err(|e| format!("{method}: {e}"))?;
    A::decode(answer).map_err(|e| format!("{method}: {e}"))
}

/// A message with the five bytes that say that it is not compressed, and how long it is.
fn frame(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).expect("a short message"));
    frame.put_slice(&body);
    frame.freeze()
}

async fn unary(socket: &Path, method: &str, body: Bytes) -> Result<Bytes, Problem> {
    let (client, connection) = handshake(UnixStream::connect(socket).await?).await?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut out) = client.ready().await?.send_request(request, false)?;
    out.send_data(body, true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut data = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        data.extend_from_slice(&chunk);
    }
    // An error without a message has its status in the head.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let text = |name: &str, headers: &HeaderMap| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    match text("grpc-status", &trailers).as_str() {
        "0" if data.len() >= 5 => Ok(data.freeze().slice(5..)),
        code => Err(format!("{} (code {code})", text("grpc-message", &trailers)).into()),
    }
}
