//! Version 2 as JSON: an array of spans (zipkin2-api.yaml).

use std::borrow::Cow;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::model::trace::SpanBatch;
use crate::protocol::{DecodeError, SpanFormat};

use super::draft::{self, Draft, Kind, Value};
use super::{finish, span_id, trace_id};

/// Decodes an array of spans.
pub fn decode_json_v2(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    let spans: Vec<Span> =
        serde_json::from_slice(body).map_err(|e| DecodeError::malformed(e.to_string()))?;
    let drafts: Result<_, _> = spans.into_iter().map(Span::draft).collect();
    Ok(finish(drafts?, SpanFormat::ZipkinJsonV2.mark()))
}

/// Text that borrows from the body unless it has escapes.
#[derive(Deserialize, Default)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'a> Text<'a> {
    pub fn bytes(self) -> draft::Text<'a> {
        match self.0 {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }
}

/// `Endpoint`, the same in both versions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint<'a> {
    #[serde(borrow, default)]
    service_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    ipv4: Option<Text<'a>>,
    #[serde(borrow, default)]
    ipv6: Option<Text<'a>>,
    #[serde(default)]
    port: Option<i64>,
}

impl<'a> Endpoint<'a> {
    pub fn read(self) -> Result<draft::Endpoint<'a>, DecodeError> {
        let ipv4: Option<Ipv4Addr> = address("ipv4", self.ipv4)?;
        let ipv6: Option<Ipv6Addr> = address("ipv6", self.ipv6)?;
        let port = self.port.unwrap_or(0);
        Ok(draft::Endpoint {
            service: self.service_name.unwrap_or_default().bytes(),
            ipv4: ipv4.filter(|ip| !ip.is_unspecified()),
            ipv6: ipv6.filter(|ip| !ip.is_unspecified()),
            // Java's senders write ports above 32767 as negative numbers.
            port: u16::try_from(port)
                .or_else(|_| i16::try_from(port).map(|port| port as u16))
                .map_err(|_| DecodeError::malformed(format!("port {port} is out of range")))?,
        })
    }
}

fn address<T: std::str::FromStr>(
    what: &str,
    text: Option<Text<'_>>,
) -> Result<Option<T>, DecodeError> {
    match text {
        Some(Text(text)) if !text.is_empty() => text.parse().map(Some).map_err(|_| {
            let text: String = text.chars().take(64).collect();
            DecodeError::malformed(format!("{what} `{text}` is no address"))
        }),
        _ => Ok(None),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    #[serde(borrow)]
    trace_id: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, default)]
    parent_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    duration: Option<i64>,
    #[serde(default)]
    debug: Option<bool>,
    #[serde(borrow, default)]
    local_endpoint: Option<Endpoint<'a>>,
    #[serde(borrow, default)]
    remote_endpoint: Option<Endpoint<'a>>,
    #[serde(borrow, default)]
    annotations: Option<Vec<Annotation<'a>>>,
    #[serde(borrow, default)]
    tags: Option<Tags<'a>>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    timestamp: i64,
    #[serde(borrow)]
    value: Text<'a>,
}

/// Members of `tags` in their order.
#[derive(Default)]
struct Tags<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Tags<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = Tags<'a>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags<'a>, A::Error> {
                let mut tags = Vec::new();
                while let Some(member) = map.next_entry()? {
                    tags.push(member);
                }
                Ok(Tags(tags))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Tags<'a>, E> {
                Ok(Tags::default())
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

impl<'a> Span<'a> {
    fn draft(self) -> Result<Draft<'a>, DecodeError> {
        let kind = match self.kind.as_ref().map_or("", |kind| &*kind.0) {
            "CLIENT" => Some(Kind::Client),
            "SERVER" => Some(Kind::Server),
            "PRODUCER" => Some(Kind::Producer),
            "CONSUMER" => Some(Kind::Consumer),
            "" => None,
            other => {
                let other: String = other.chars().take(64).collect();
                return Err(DecodeError::malformed(format!("kind `{other}` is unknown")));
            }
        };
        let parent = self.parent_id.filter(|id| !id.0.is_empty());
        let annotations = self.annotations.unwrap_or_default();
        let Tags(tags) = self.tags.unwrap_or_default();
        Ok(Draft {
            trace_id: trace_id(&self.trace_id.0)?,
            id: span_id(&self.id.0)?,
            parent: parent.map(|id| span_id(&id.0)).transpose()?,
            name: self.name.unwrap_or_default().bytes(),
            debug: self.debug.unwrap_or(false),
            timestamp: self.timestamp,
            duration: self.duration,
            kind,
            local: self
                .local_endpoint
                .map(Endpoint::read)
                .transpose()?
                .map(Rc::new),
            remote: self.remote_endpoint.map(Endpoint::read).transpose()?,
            annotations: annotations
                .into_iter()
                .map(|annotation| draft::Annotation {
                    at: annotation.timestamp,
                    value: annotation.value.bytes(),
                    host: None,
                })
                .collect(),
            binary: tags
                .into_iter()
                .map(|(key, value)| draft::BinaryAnnotation {
                    key: key.bytes(),
                    value: Value::String(value.bytes()),
                    host: None,
                })
                .collect(),
        })
    }
}
