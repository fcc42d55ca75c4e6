//! The one codec: MessagePack with named fields and readable values, or JSON; the same shape in both.
//!
//! Which of the two a message is follows from its first byte: contract messages are maps or lists, which
//! MessagePack never begins with `{` or `[`. Bytes after the message are an error. An empty body is read
//! as `{}`, so that a request without fields can be sent by hand.

use std::any::type_name;
use std::io::Cursor;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CodecError;

/// Deepest nesting that is read; the same as serde_json's, so that garbage cannot exhaust the stack.
const MAX_DEPTH: usize = 128;

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Compact; what Quintet's own programs speak.
    #[default]
    MessagePack,
    /// Readable; what people and small scripts speak.
    Json,
}

impl Encoding {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match bytes.trim_ascii_start().first() {
            None | Some(b'{' | b'[') => Self::Json,
            Some(_) => Self::MessagePack,
        }
    }
}

/// Writes a message.
///
/// # Errors
/// [`CodecError::Encode`] for a value that the encoding cannot hold.
pub fn encode<T: Serialize>(value: &T, encoding: Encoding) -> Result<Bytes, CodecError> {
    let mut buffer = Vec::with_capacity(256);
    let written = match encoding {
        Encoding::MessagePack => {
            let mut serializer = rmp_serde::Serializer::new(&mut buffer)
                .with_struct_map()
                .with_human_readable();
            value
                .serialize(&mut serializer)
                .map_err(|error| error.into())
        }
        Encoding::Json => serde_json::to_writer(&mut buffer, value).map_err(|error| error.into()),
    };
    written.map_err(|source| CodecError::Encode {
        what: type_name::<T>(),
        source,
    })?;
    Ok(buffer.into())
}

/// Decodes a message and returns its encoding.
///
/// # Errors
/// [`CodecError::Malformed`] for bytes that are not the message; it names the field at fault.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Encoding), CodecError> {
    let encoding = Encoding::of(bytes);
    let value = match encoding {
        Encoding::MessagePack => decode_message_pack(bytes)?,
        Encoding::Json if bytes.is_empty() => decode_json(b"{}")?,
        Encoding::Json => decode_json(bytes)?,
    };
    Ok((value, encoding))
}

/// Any message as JSON text on one line, in any encoding.
///
/// # Errors
/// [`CodecError::Malformed`] for bytes that are no message at all.
pub fn to_json_text(bytes: &[u8]) -> Result<String, CodecError> {
    let (value, _) = decode::<serde_json::Value>(bytes)?;
    Ok(value.to_string())
}

fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(malformed)?;
    deserializer.end().map_err(|_| CodecError::Malformed {
        path: String::new(),
        reason: "bytes follow after the message".to_owned(),
    })?;
    Ok(value)
}

fn decode_message_pack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes)).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(malformed)?;
    let read = usize::try_from(deserializer.get_ref().position()).unwrap_or(usize::MAX);
    if read != bytes.len() {
        let reason = format!(
            "{} bytes follow after the message",
            bytes.len().saturating_sub(read)
        );
        return Err(CodecError::Malformed {
            path: String::new(),
            reason,
        });
    }
    Ok(value)
}

fn malformed<E: std::fmt::Display>(error: serde_path_to_error::Error<E>) -> CodecError {
    let path = error.path().to_string();
    // A lone dot stands for the message itself.
    let path = if path == "." { String::new() } else { path };
    CodecError::Malformed {
        path,
        reason: error.inner().to_string(),
    }
}
