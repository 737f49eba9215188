//! A request's body in pieces: a document of many megabytes goes from the message to the socket without a copy of it as a whole.

use crate::fhir::Json;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The pieces that are still to be sent. Its length is known, so that the request says `Content-Length` and servers need not take chunks.
#[derive(Clone)]
pub(crate) struct Pieces(VecDeque<Bytes>);

/// So much is given to the connection at once, for what encrypts or copies it.
const FRAME_BYTES: usize = 64 * 1024;

impl Pieces {
    pub(crate) fn of(json: Json) -> Self {
        Self(json.into_pieces().into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.0.front_mut() else { return Poll::Ready(None) };
        let next = first.split_to(first.len().min(FRAME_BYTES));
        if first.is_empty() {
            self.0.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
