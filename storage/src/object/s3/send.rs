//! One request and its answer, on a line that may die without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::CONTENT_LENGTH;
use rusty_s3::S3Action;

use super::answer::Answer;
use super::body::Upload;
use super::failure::{Cause, S3Failure};
use super::{Error, S3Store};

/// How long a signature is valid: the time of a slow upload's beginning.
const VALID_FOR: Duration = Duration::from_secs(900);
/// What the system's buffers may still hold of a body that was handed over, and the slowest line that is
/// given the time to carry it away.
const BUFFERED_BYTES_MAX: u64 = 4 << 20;
const SLOWEST_BYTES_PER_S: u64 = 8 << 10;
/// No answer that is an error needs more.
const ERROR_BYTES_MAX: usize = 1 << 20;

impl S3Store {
    /// Signs and sends, once more if what is wrong is the time.
    pub(super) async fn send<'a, A: S3Action<'a>>(
        &'a self,
        action: &mut A,
        upload: Option<&Upload>,
    ) -> Result<Answer, S3Failure> {
        let answer = self.send_once(action, upload).await?;
        let learnt = answer.date().is_some_and(|date| {
            // Not from a stranger, whose clock is his own.
            !answer.is_a_page() && (answer.is_of_s3() || is_refused(&answer)) && self.0.time.learn(date)
        });
        if learnt && is_refused(&answer) {
            return self.send_once(action, upload).await;
        }
        Ok(answer)
    }

    async fn send_once<'a, A: S3Action<'a>>(
        &'a self,
        action: &mut A,
        upload: Option<&Upload>,
    ) -> Result<Answer, S3Failure> {
        let method = reqwest::Method::from_bytes(A::METHOD.to_str().as_bytes()).unwrap_or_default();
        let url = action.sign_with_time(VALID_FOR, &self.0.time.now());
        let mut request = self.0.client.request(method, url);
        for (name, value) in action.headers_mut().iter() {
            request = request.header(name, value);
        }
        let handed = Arc::new(AtomicU64::new(0));
        if let Some(upload) = upload {
            let body = upload.to_body(self.0.pace.get().cloned(), handed.clone()).map_err(unreadable)?;
            request = request.header(CONTENT_LENGTH, upload.bytes).body(body);
        }
        let response = self.unless_stalled(request.send(), &handed).await?;
        let mut response = response.map_err(S3Failure::of_transport)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        loop {
            let chunk = self.unless_stalled(response.chunk(), &handed).await?;
            let Some(chunk) = chunk.map_err(S3Failure::of_transport)? else { break };
            body.extend_from_slice(&chunk);
            if !status.is_success() && body.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        Ok(Answer { status, headers, body: Bytes::from(body) })
    }

    /// Waits for as long as bytes are handed over, and then for an answer.
    async fn unless_stalled<F: Future>(&self, work: F, handed: &AtomicU64) -> Result<F::Output, S3Failure> {
        let mut work = std::pin::pin!(work);
        let mut known = handed.load(Ordering::Relaxed);
        loop {
            // What is still in the system's buffers travels on without being handed over.
            let travels = Duration::from_secs(known.min(BUFFERED_BYTES_MAX) / SLOWEST_BYTES_PER_S);
            if let Ok(done) = tokio::time::timeout(self.0.timeout + travels, work.as_mut()).await {
                return Ok(done);
            }
            let now = handed.load(Ordering::Relaxed);
            if now == known {
                let message = format!("for {} s", (self.0.timeout + travels).as_secs());
                return Err(S3Failure::new(Cause::Stalled, message));
            }
            known = now;
        }
    }
}

/// Because of who or when, perhaps. An answer to HEAD says no more than its status.
fn is_refused(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 400 | 401 | 403)
}

fn unreadable(error: Error) -> S3Failure {
    S3Failure::new(Cause::NoConnection, error.to_string())
}
