//! The HTTP server: which addresses show what.

use crate::console::page;
use crate::console::status::Watch;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What an address shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Everything.
    All,
    /// `/metrics`, `/healthz` and `/readyz` only.
    Probes,
}

/// A bound socket; [`Server::run`] serves it.
pub struct Server {
    socket: TcpListener,
    pages: Pages,
}

/// Binds an address, so that a port that is taken is found before anything starts.
pub async fn bind(address: SocketAddr, pages: Pages) -> std::io::Result<Server> {
    Ok(Server { socket: TcpListener::bind(address).await?, pages })
}

impl Server {
    /// The address that it is bound to.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until closing; requests that are under way are answered.
    pub async fn run(self, watch: Arc<Watch>, closing: CancellationToken) {
        let probes = Router::new().route("/metrics", get(metrics)).route("/healthz", get(health)).route("/readyz", get(ready));
        let router = match self.pages {
            Pages::Probes => probes,
            Pages::All => probes
                .route("/", get(|| async { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page::HTML) }))
                .route("/console.css", get(|| async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], page::CSS) }))
                .route("/console.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], page::JS) }))
                .route("/favicon.svg", get(|| async { ([(header::CONTENT_TYPE, "image/svg+xml")], page::ICON) }))
                .route("/api/stats", get(stats)),
        };
        let router = match self.pages {
            Pages::Probes => router,
            Pages::All => router.layer(middleware::from_fn(only_by_address)),
        };
        let router = router.layer(middleware::map_response(careful)).with_state(watch);
        let served = axum::serve(self.socket, router).with_graceful_shutdown(closing.cancelled_owned()).await;
        if let Err(e) = served {
            tracing::error!(kind = ?e.kind(), "the console's server failed");
        }
    }
}

/// A page from elsewhere must not reach the console through a name that it makes point here (DNS rebinding): the console
/// answers to addresses and to `localhost`, which no such name can be.
async fn only_by_address(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let name = host.strip_prefix('[').and_then(|v6| v6.split_once(']').map(|(name, _)| name)).unwrap_or_else(|| host.split(':').next().unwrap_or(""));
    if name == "localhost" || name.parse::<IpAddr>().is_ok() {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "ask for the console by its address or as localhost\n").into_response()
}

/// Nothing is cached, framed or loaded from elsewhere.
async fn careful(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    );
    response
}

async fn metrics(State(watch): State<Arc<Watch>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], watch.metrics.encode()).into_response()
}

/// Alive, as long as the journal has not failed for good.
async fn health(State(watch): State<Arc<Watch>>) -> Response {
    if watch.journal.has_failed() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the journal's disk failed\n").into_response();
    }
    "ok\n".into_response()
}

async fn ready(State(watch): State<Arc<Watch>>) -> Response {
    let readiness = watch.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn stats(State(watch): State<Arc<Watch>>) -> Response {
    match watch.stats().await {
        Ok(stats) => Json(stats).into_response(),
        Err(what) => (StatusCode::SERVICE_UNAVAILABLE, what).into_response(),
    }
}
