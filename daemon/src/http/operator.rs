//! The operator listener: health, readiness, metrics.
//!
//! Called by start-up; served on a loopback address without TLS and without a credential.
//! So it changes nothing, and tells nothing about an account. It knows no service: what
//! must work for the daemon to be ready is given to it as named checks.
//!
//! `GET /healthz` says that the process answers; `GET /readyz` runs every check, 200 or 503
//! with problem+json (RFC 9457); `GET /metrics` is the Prometheus text format 0.0.4. It runs the
//! checks, too, where the last scrape is some seconds ago: a check works the token, and anybody on this
//! host may ask.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use custodyd_hsm::Pool;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::service::tokens;
use crate::watch::CLOCK_GRACE;

/// A check that takes longer counts as failed. Monitoring asks again soon.
const CHECK_DEADLINE: Duration = Duration::from_secs(8);
/// How old the gauges of a scrape may be.
const BETWEEN_SCRAPES: Duration = Duration::from_secs(3);

type Run = dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// Something that must work for the daemon to serve.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    run: Arc<Run>,
    tokens: Option<Pool>,
    clock: Option<Arc<Clock>>,
}

impl Check {
    /// `run` gives the reason when the check fails; it is shown to the operator.
    pub fn new<F, Fut>(name: &'static str, run: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            name,
            run: Arc::new(move || run().boxed()),
            tokens: None,
            clock: None,
        }
    }

    /// Not before the host's clock was ever set. One that was set back is said, and no reason to serve nobody: time does not
    /// go back here.
    pub fn clock(clock: &Arc<Clock>) -> Self {
        let asked = Arc::clone(clock);
        let check = Self::new("clock", move || {
            let set = asked.is_set();
            async move { set }
        });
        let clock = Some(Arc::clone(clock));
        Self { clock, ..check }
    }

    /// The known-answer probe of the token: an operation with a known result is the only
    /// honest sign of health, for return codes lie (a token whose files are gone still
    /// says that it is logged in).
    pub fn token(pool: Pool) -> Self {
        let tokens = Some(pool.clone());
        let check = Self::new("token", move || {
            let pool = pool.clone();
            async move {
                pool.call("readiness probe", |custody| custody.probe())
                    .await
                    .map_err(|error| error.to_string())
            }
        });
        Self { tokens, ..check }
    }

    async fn outcome(&self) -> Result<(), Failure> {
        let reason = match tokio::time::timeout(CHECK_DEADLINE, (self.run)()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {} s", CHECK_DEADLINE.as_secs()),
        };
        Err(Failure {
            check: self.name,
            reason,
        })
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

struct Failure {
    check: &'static str,
    reason: String,
}

/// What both listeners of operators answer from.
pub struct Operator {
    checks: Vec<Check>,
    metrics: PrometheusHandle,
    /// When a scrape last ran the checks. Held while they run: others wait for what they find.
    scraped: Mutex<Option<Instant>>,
}

/// The routes of the listener on loopback. Readiness runs all checks at once and names each that failed.
pub fn router(operator: &Arc<Operator>) -> Router {
    Router::new()
        .route("/metrics", get(render_metrics))
        .with_state(Arc::clone(operator))
        .merge(health(operator))
}

/// Those that the operator's socket has as well: `doctor` asks there, in a unit that has no loopback of this host.
pub fn health(operator: &Arc<Operator>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(operator))
}

/// `doctor` recognises a running daemon by this name.
async fn healthz() -> Response {
    no_store(axum::Json(
        json!({ "service": "custodyd", "version": env!("CARGO_PKG_VERSION") }),
    ))
}

async fn readyz(State(operator): State<Arc<Operator>>) -> Response {
    let outcomes = join_all(operator.checks.iter().map(Check::outcome)).await;
    let failures: Vec<Failure> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() {
        let names: Vec<_> = operator.checks.iter().map(|check| check.name).collect();
        let mut answer = json!({ "ready": true, "checked": names });
        let pools = operator
            .checks
            .iter()
            .filter_map(|check| check.tokens.as_ref());
        let tokens = pools.filter_map(tokens::shown).next();
        if let (Some(answer), Some(tokens)) = (answer.as_object_mut(), tokens) {
            // One of several is enough to be ready; which do not answer is said all the same.
            answer.insert("tokens".to_owned(), tokens);
        }
        let mut clocks = operator.checks.iter().filter_map(|one| one.clock.as_ref());
        let behind = clocks.next().map_or(0, |clock| clock.behind());
        if behind > CLOCK_GRACE
            && let Some(answer) = answer.as_object_mut()
        {
            answer.insert("clock_behind_seconds".to_owned(), json!(behind));
        }
        return no_store(axum::Json(answer));
    }
    for failure in &failures {
        tracing::warn!(check = failure.check, reason = failure.reason, "not ready");
    }
    not_ready(&failures)
}

fn not_ready(failures: &[Failure]) -> Response {
    let names: Vec<_> = failures.iter().map(|failure| failure.check).collect();
    let problem = json!({
        "type": "about:blank",
        "title": "Not ready",
        "status": 503,
        "code": "not-ready",
        "detail": format!("failed: {}", names.join(", ")),
        "failed": failures
            .iter()
            .map(|failure| json!({ "check": failure.check, "reason": failure.reason }))
            .collect::<Vec<_>>(),
    });
    let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
    no_store((
        StatusCode::SERVICE_UNAVAILABLE,
        content_type,
        problem.to_string(),
    ))
}

async fn render_metrics(State(operator): State<Arc<Operator>>) -> Response {
    operator.look().await;
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    no_store((content_type, operator.metrics.render()))
}

impl Operator {
    pub fn new(checks: Vec<Check>, metrics: PrometheusHandle) -> Arc<Self> {
        Arc::new(Self {
            checks,
            metrics,
            scraped: Mutex::default(),
        })
    }

    async fn look(&self) {
        let mut scraped = self.scraped.lock().await;
        if scraped.is_some_and(|at| at.elapsed() < BETWEEN_SCRAPES) {
            return;
        }
        let outcomes = join_all(self.checks.iter().map(Check::outcome)).await;
        for (check, outcome) in self.checks.iter().zip(&outcomes) {
            let ready = if outcome.is_ok() { 1.0 } else { 0.0 };
            metrics::gauge!("custodyd_ready", "check" => check.name).set(ready);
        }
        *scraped = Some(Instant::now());
    }
}

fn no_store(response: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], response).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str, checks: Vec<Check>) -> (StatusCode, String, String) {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("custodyd_test_total").increment(3)
        });
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(&Operator::new(checks, recorder.handle()))
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE).unwrap();
        let content_type = content_type.to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            content_type,
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    fn good() -> Check {
        Check::new("store", || async { Ok(()) })
    }

    #[tokio::test]
    async fn ready_when_every_check_passes() {
        let (status, _, body) = get("/readyz", vec![good()]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("\"store\""), "{body}");
    }

    #[tokio::test]
    async fn what_failed_is_named_and_what_works_is_not() {
        let bad = Check::new("token", || async { Err("the token is away".to_owned()) });
        let (status, content_type, body) = get("/readyz", vec![good(), bad]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(content_type, "application/problem+json");
        assert!(
            body.contains("the token is away") && !body.contains("store"),
            "{body}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let hanging = Check::new("token", std::future::pending);
        let (status, _, body) = get("/readyz", vec![hanging]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("no answer within"), "{body}");
    }

    #[tokio::test]
    async fn alive_whatever_the_checks_say() {
        let bad = Check::new("token", || async { Err("away".to_owned()) });
        let (status, _, body) = get("/healthz", vec![bad]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("custodyd"));
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let (status, content_type, body) = get("/metrics", Vec::new()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(content_type.starts_with("text/plain; version=0.0.4"));
        assert!(body.contains("custodyd_test_total 3"), "{body}");
    }
}
