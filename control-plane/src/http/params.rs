//! Query parameters as the SDKs send them: keys that repeat, and maps in brackets (oz-api.md 1.1). Parameters
//! nobody asked for are tolerated and named in `x-ozma-ignored`.

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};

use super::{error::ApiError, forms};

/// Most parameters of one request; more are answered with 400.
const MAX_PARAMS: usize = 100;

/// Longest text to look for, in bytes; a longer one is answered with 400.
const MAX_TEXT_BYTES: usize = 1_024;

/// The parameters that nobody took yet.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::invalid("query", error.body_text()))?;
        if pairs.len() > MAX_PARAMS {
            let rule = format!("at most {MAX_PARAMS} parameters");
            return Err(ApiError::invalid("query", rule));
        }
        Ok(Self(pairs))
    }
}

impl Params {
    /// The last value of this name; an empty one counts as none.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.take_all(name).pop()
    }

    /// The last value of this name, to look for in the database: of a sane length, and without NUL.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let given = self.take(name);
        given.as_deref().map_or(Ok(()), |given| forms::text(name, given, MAX_TEXT_BYTES))?;
        Ok(given)
    }

    /// Every value of this name, in order: `state=A&state=B` is two.
    pub(crate) fn take_all(&mut self, name: &str) -> Vec<String> {
        self.0
            .extract_if(.., |(key, _)| key == name || key.strip_suffix("[]") == Some(name))
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
            .collect()
    }

    /// The entries of a map: `metadata[ticket]=V-1` under `metadata`.
    pub(crate) fn take_map(&mut self, name: &str) -> Vec<(String, String)> {
        let key_of = |key: &str| {
            let inner = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some(inner.to_owned())
        };
        self.0
            .extract_if(.., |(key, _)| key_of(key).is_some())
            .filter_map(|(key, value)| Some((key_of(&key)?, value)))
            .collect()
    }

    /// The value of this name, read.
    ///
    /// # Errors
    /// It cannot be read; the error names the parameter and the rule.
    pub(crate) fn read<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let read = text.parse().map_err(|error: T::Err| ApiError::invalid(name, error.to_string()));
        read.map(Some)
    }

    /// `limit`, within 1 and `most`.
    pub(crate) fn limit(&mut self, default: u32, most: u32) -> Result<u32, ApiError> {
        match self.read("limit")? {
            None => Ok(default),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::invalid("limit", format!("must be 1 to {most}"))),
        }
    }

    /// What is left: nobody asked for it.
    pub(crate) fn rest(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    #[test]
    fn keys_repeat_and_maps_have_brackets() {
        let mut params = params(&[
            ("state", "QUEUED"),
            ("metadata[a]", "1"),
            ("state", "FAILED"),
            ("limit", "x"),
        ]);
        assert_eq!(params.take_all("state"), ["QUEUED", "FAILED"]);
        assert_eq!(params.take_map("metadata"), [("a".to_owned(), "1".to_owned())]);
        assert!(params.limit(20, 500).is_err());
        assert_eq!(params.rest().count(), 0);
    }
}
