//! The credentials that calls carry.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{self, HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::operation::Place;
use super::request::percent;
use crate::net::{NetError, Request, is_reserved_header, secret_header};
use crate::secrets::Secrets;

/// How an API knows who calls: one of these.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpenApiAuth {
    /// `Authorization: Bearer` and a token.
    Bearer {
        /// The token.
        #[schemars(with = "String")]
        token: SecretString,
    },
    /// A header of its own, such as `X-Api-Key`.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        #[schemars(with = "String")]
        value: SecretString,
    },
    /// A parameter in the query. Prefer another way where the API has one: proxies write addresses down.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value.
        #[schemars(with = "String")]
        value: SecretString,
    },
    /// A user name and a password.
    Basic {
        /// The user name; without a colon.
        username: String,
        /// The password.
        #[schemars(with = "String")]
        password: SecretString,
    },
}

/// Credentials in the form requests need.
#[derive(Clone)]
pub(super) enum Credentials {
    Header(HeaderName, HeaderValue),
    Query(String, SecretString),
}

impl OpenApiAuth {
    /// What of it no model may read.
    pub(super) fn secrets(&self) -> Secrets {
        match self {
            Self::Bearer { token: secret } | Self::Header { value: secret, .. } | Self::Query { value: secret, .. } => {
                Secrets::new([secret.expose_secret()])
            }
            Self::Basic { username, password } => {
                let password = password.expose_secret();
                Secrets::new([password, &format!("{username}:{password}")])
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name, _) => f.debug_tuple("Header").field(name).finish_non_exhaustive(),
            Self::Query(name, _) => f.debug_tuple("Query").field(name).finish_non_exhaustive(),
        }
    }
}

impl Credentials {
    pub fn new(auth: &OpenApiAuth) -> Result<Self, NetError> {
        match auth {
            OpenApiAuth::Bearer { token } => {
                let value = secret_header("auth.bearer.token", &format!("Bearer {}", token.expose_secret()))?;
                Ok(Self::Header(header::AUTHORIZATION, value))
            }
            OpenApiAuth::Basic { username, password } => {
                if username.contains(':') {
                    return Err(NetError::Setting(
                        "auth.basic.username has a colon, which it must not have".to_owned(),
                    ));
                }
                let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose_secret()));
                Ok(Self::Header(header::AUTHORIZATION, secret_header("auth.basic", &format!("Basic {pair}"))?))
            }
            OpenApiAuth::Header { name, value } => {
                let known =
                    HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_reserved_header(name.as_str()));
                let known =
                    known.ok_or_else(|| NetError::Setting(format!("auth.header.name {name:?} cannot be set")))?;
                Ok(Self::Header(known, secret_header("auth.header.value", value.expose_secret())?))
            }
            OpenApiAuth::Query { name, value } => Ok(Self::Query(name.clone(), value.clone())),
        }
    }

    /// Whether the credentials are this parameter.
    pub fn fills(&self, place: Place, name: &str) -> bool {
        match self {
            Self::Header(own, _) => place == Place::Header && own.as_str().eq_ignore_ascii_case(name),
            Self::Query(own, _) => place == Place::Query && own == name,
        }
    }

    /// Adds them to a request.
    pub fn add(&self, request: &mut Request) {
        match self {
            Self::Header(name, value) => {
                request.headers.insert(name.clone(), value.clone());
            }
            Self::Query(name, value) => {
                let part = format!("{}={}", percent(name), percent(value.expose_secret()));
                let query = request.url.query().filter(|query| !query.is_empty());
                let whole = query.map_or_else(|| part.clone(), |query| format!("{query}&{part}"));
                request.url.set_query(Some(&whole));
            }
        }
    }
}
