//! Query parameters: the struct that documents them is the one that they are parsed into.
//!
//! A parameter that is left blank counts as not given, as a form sends it; a flag that is left blank is true. Parameters that
//! are not known are ignored, and of one that comes several times the last counts.

use std::collections::HashMap;
use std::str::FromStr;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::Operation;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use quintet_contract::error::ErrorCode;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::error::HttpError;

/// Parameters, read as `T`.
pub(crate) struct Query<T>(pub(crate) T);

/// What parameters must be.
pub(crate) trait QueryParams: DeserializeOwned + Send {
    /// Parameters for which blank means something.
    const FLAGS: &'static [&'static str] = &[];

    /// What this one must be; completes "must be".
    fn expected(name: &str) -> String;

    /// One whose value is out of its bounds.
    fn out_of_bounds(&self) -> Option<&'static str> {
        None
    }

    /// The error of one that is wrong.
    fn invalid(name: &str, text: String) -> HttpError {
        HttpError::invalid(name, text)
    }
}

impl<T: QueryParams, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let all = axum::extract::Query::<HashMap<String, String>>::from_request_parts(parts, state);
        let axum::extract::Query(all) = all
            .await
            .map_err(|error| HttpError::new(ErrorCode::BadRequest, error.body_text()))?;
        parse(all).map(Self)
    }
}

fn parse<T: QueryParams>(mut all: HashMap<String, String>) -> Result<T, HttpError> {
    all.retain(|name, value| !value.is_empty() || T::FLAGS.contains(&name.as_str()));
    let given = all
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let values = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(
        given.map(|(name, value)| (name, Text(value))),
    );
    let invalid = |name: &str| T::invalid(name, format!("{name} must be {}", T::expected(name)));
    let params: T = serde_path_to_error::deserialize(values)
        .map_err(|error| invalid(&error.path().to_string()))?;
    match params.out_of_bounds() {
        Some(name) => Err(invalid(name)),
        None => Ok(params),
    }
}

/// A text that is read as what is asked for.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl<'de> serde::de::IntoDeserializer<'de, serde::de::value::Error> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Reads a text as a number.
macro_rules! numbers {
    ($($name:ident $visit:ident $type:ty;)*) => {
        $(fn $name<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let number = self.0.parse::<$type>().map_err(Self::Error::custom)?;
            visitor.$visit(number)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = serde::de::value::Error;

    numbers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_any<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(serde::de::value::BorrowedStrDeserializer::new(self.0))
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// `true`, `false`, `1` or `0`; a name alone means true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "false" | "0" => Ok(Self(false)),
            "true" | "1" | "" => Ok(Self(true)),
            other => Err(D::Error::custom(format!("{other:?} is no flag"))),
        }
    }
}

/// A text that is read by its own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed<T>(pub(crate) T);

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let parsed = String::deserialize(from)?.parse();
        parsed
            .map(Self)
            .map_err(|_| D::Error::custom("not understood"))
    }
}

impl<T: JsonSchema> OperationInput for Query<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        axum::extract::Query::<T>::operation_input(ctx, operation);
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::job::JobStatus;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        status: Option<JobStatus>,
        limit: Option<u32>,
        dry_run: Option<Flag>,
        id: Option<Parsed<std::net::IpAddr>>,
        owner: Option<String>,
    }

    impl QueryParams for Params {
        const FLAGS: &'static [&'static str] = &["dryRun"];

        fn expected(name: &str) -> String {
            format!("a good {name}")
        }

        fn out_of_bounds(&self) -> Option<&'static str> {
            (self.limit == Some(0)).then_some("limit")
        }
    }

    fn read(query: &[(&str, &str)]) -> Result<Params, HttpError> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        parse(query.iter().map(pair).collect())
    }

    #[test]
    fn parameters_are_read_by_type_and_blank_ones_are_not_given() {
        let all = [
            ("status", "RUNNING"),
            ("limit", "7"),
            ("dryRun", ""),
            ("id", "::1"),
            ("owner", "eve"),
            ("else", "x"),
        ];
        let expected = Params {
            status: Some(JobStatus::Running),
            limit: Some(7),
            dry_run: Some(Flag(true)),
            id: "::1".parse().ok().map(Parsed),
            owner: Some("eve".to_owned()),
        };
        assert_eq!(read(&all).unwrap(), expected);
        let blank = [("status", ""), ("limit", ""), ("id", ""), ("owner", "")];
        assert_eq!(read(&blank).unwrap(), Params::default());
    }

    #[test]
    fn a_wrong_parameter_is_named_with_what_it_must_be() {
        for (name, value) in [
            ("status", "running"),
            ("limit", "x"),
            ("limit", "-1"),
            ("limit", "0"),
            ("limit", "99999999999"),
            ("dryRun", "maybe"),
            ("id", "localhost"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(
                error.reply.error,
                format!("{name} must be a good {name}"),
                "{value}"
            );
            assert_eq!(error.reply.details["field"], name);
        }
    }
}
