//! What a client shows of itself with each call, where it is known by a token.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use crate::Error;

/// How long what a file had is taken for what it has.
const READ_EVERY: Duration = Duration::from_secs(5);

/// A token, or where it is. It does not print what it is.
#[derive(Clone)]
pub enum Token {
    /// This one.
    Text(Arc<str>),
    /// The one that is in this file, read again every five seconds: whoever issues tokens for a service replaces it there.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Token"),
            Self::File(path) => write!(f, "Token({})", path.display()),
        }
    }
}

/// A token as calls show it, as it was last read.
#[derive(Default)]
pub(crate) struct Shown {
    read: Mutex<Option<(Instant, MetadataValue<Ascii>)>>,
}

impl Shown {
    /// What a call shows now.
    pub(crate) async fn now(&self, token: &Token) -> Result<MetadataValue<Ascii>, Error> {
        let lock = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, value)) = &*lock()
            && (matches!(token, Token::Text(_)) || at.elapsed() < READ_EVERY)
        {
            return Ok(value.clone());
        }
        let unusable = |why: String| match token {
            Token::Text(_) => Error::Token { place: "the token".to_owned(), why },
            Token::File(path) => Error::Token { place: path.display().to_string(), why },
        };
        let text = match token {
            Token::Text(text) => text.to_string(),
            Token::File(path) => tokio::fs::read_to_string(path).await.map_err(|error| unusable(format!("cannot be read: {error}")))?,
        };
        let value = format!("Bearer {}", text.trim()).parse().map_err(|_| unusable("is no token".to_owned()))?;
        *lock() = Some((Instant::now(), MetadataValue::clone(&value)));
        Ok(value)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_in_a_file_is_read_again_and_none_is_printed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let (token, shown) = (Token::File(path.clone()), Shown::default());
        assert!(shown.now(&token).await.expect_err("there is none").to_string().contains("cannot be read"));
        std::fs::write(&path, "first\n").expect("written");
        assert_eq!(shown.now(&token).await.expect("a token"), "Bearer first");
        std::fs::write(&path, "second\n").expect("written");
        assert_eq!(shown.now(&token).await.expect("a token"), "Bearer first");
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(shown.now(&token).await.expect("a token"), "Bearer second");
        std::fs::write(&path, "no\ntoken").expect("written");
        tokio::time::advance(READ_EVERY).await;
        assert!(shown.now(&token).await.expect_err("two lines").to_string().contains("is no token"));
        assert!(!format!("{:?}{shown:?}", Token::Text("secret".into())).contains("secret"));
    }
}
