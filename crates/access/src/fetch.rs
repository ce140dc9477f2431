//! Asks a place on the web for a file: one request, bounded in time and bytes, and no redirects.

use std::{path::Path, time::Duration};

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use paymesh_identity::Authorities;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// How long all of it may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer at most.
const BYTES_MAX: usize = 256 * 1024;

/// What is there. The error says why there is nothing.
pub(crate) async fn get(url: &str, authorities: Option<&Path>) -> Result<Vec<u8>, String> {
    let asked = tokio::time::timeout(WAIT_MAX, ask(url, authorities)).await;
    asked.unwrap_or_else(|_| Err(format!("no answer within {WAIT_MAX:?}")))
}

async fn ask(url: &str, authorities: Option<&Path>) -> Result<Vec<u8>, String> {
    let uri: Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
    let host = uri.host().ok_or("names no host")?;
    let secured = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let bare = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| format!("cannot be reached: {error}"))?;
    if !secured {
        return request(&uri, stream).await;
    }
    let authorities = authorities.ok_or("needs authorities that are believed")?;
    let authorities = Authorities::load(authorities).map_err(|error| error.to_string())?;
    let stream = authorities.dial_web(bare, stream).await.map_err(|error| format!("is not believed: {error}"))?;
    request(&uri, stream).await
}

async fn request(uri: &Uri, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Vec<u8>, String> {
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes().to_vec()).map_err(|error| format!("the answer was cut off or too long: {error}"))
    };
    // The connection must be polled for as long as the answer is waited for, and is dropped with it.
    tokio::pin!(connection, answered);
    tokio::select! {
        answered = &mut answered => answered,
        ended = &mut connection => match ended {
            Err(error) => Err(broken(error)),
            Ok(()) => answered.await,
        },
    }
}
