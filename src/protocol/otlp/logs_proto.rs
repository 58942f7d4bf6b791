//! `ExportLogsServiceRequest` as protobuf, read from its bytes without a copy.
//!
//! ```text
//! Request      { repeated ResourceLogs = 1; }
//! ResourceLogs { Resource = 1; repeated ScopeLogs = 2; }
//! Resource     { repeated KeyValue attributes = 1; }
//! ScopeLogs    { Scope = 1; repeated LogRecord = 2; }
//! Scope        { name = 1; version = 2; repeated KeyValue attributes = 3; dropped = 4; }
//! ```
//! Unknown fields are skipped, the last value of a repeated single field wins.

use super::logs::{Attribute, Collector, MAX_VALUES, Record, Refused, Scope, Value as Any};
use crate::protocol::MAX_NESTING;
use crate::protocol::loki::push::DecodeError;
use crate::protocol::protobuf::{Fields, Value, signed};

impl From<crate::protocol::DecodeError> for DecodeError {
    fn from(error: crate::protocol::DecodeError) -> Self {
        Self::Invalid(format!("not an export of logs in protobuf: {error}"))
    }
}

pub(super) fn decode(body: &[u8], collector: &mut Collector<'_>) -> Result<(), DecodeError> {
    let mut request = Fields::new(body);
    while let Some(field) = request.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            resource_logs(bytes, collector)?;
        }
    }
    Ok(())
}

fn resource_logs(bytes: &[u8], collector: &mut Collector<'_>) -> Result<(), DecodeError> {
    // Fields may come in any order; the resource is needed first.
    let mut resource: &[u8] = &[];
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            resource = bytes;
        }
    }
    let mut values = Values::default();
    let mut attributes = Vec::new();
    let mut message = Fields::new(resource);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            attributes.push(values.attribute(bytes)?);
        }
    }
    collector.begin_resource(&attributes)?;
    drop(attributes);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (2, Value::Bytes(bytes)) = field {
            scope_logs(bytes, collector)?;
        }
    }
    Ok(())
}

fn scope_logs(bytes: &[u8], collector: &mut Collector<'_>) -> Result<(), DecodeError> {
    let mut scope: &[u8] = &[];
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            scope = bytes;
        }
    }
    collector.begin_scope(&read_scope(scope)?)?;
    let mut record = Record::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (2, Value::Bytes(bytes)) = field {
            match read_record(bytes, &mut record) {
                Ok(()) => collector.record(Ok(&record))?,
                Err(Stopped::Broken(error)) => return Err(error),
                Err(Stopped::Refused(refused)) => collector.record(Err(refused))?,
            }
        }
    }
    Ok(())
}

fn read_scope(bytes: &[u8]) -> Result<Scope<'_>, DecodeError> {
    let mut scope = Scope::default();
    let mut values = Values::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(text)) => scope.name = text.into(),
            (2, Value::Bytes(text)) => scope.version = text.into(),
            (3, Value::Bytes(bytes)) => scope.attributes.push(values.attribute(bytes)?),
            (4, Value::Varint(count)) => scope.dropped_attributes = count as u32,
            _ => {}
        }
    }
    Ok(scope)
}

/// Reads into `record`, whose memory is used again.
fn read_record<'a>(bytes: &'a [u8], record: &mut Record<'a>) -> Result<(), Stopped> {
    let mut attributes = std::mem::take(&mut record.attributes);
    attributes.clear();
    *record = Record {
        attributes,
        ..Record::default()
    };
    let mut values = Values::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Fixed64(time)) => record.time = time,
            (2, Value::Varint(number)) => record.severity_number = signed(number),
            (3, Value::Bytes(text)) => record.severity_text = text.into(),
            (5, Value::Bytes(bytes)) => record.body = values.any(bytes, MAX_NESTING)?,
            (6, Value::Bytes(bytes)) => record.attributes.push(values.attribute(bytes)?),
            (7, Value::Varint(count)) => record.dropped_attributes = count as u32,
            (8, Value::Fixed32(flags)) => record.flags = flags,
            (9, Value::Bytes(id)) => record.trace_id = id.into(),
            (10, Value::Bytes(id)) => record.span_id = id.into(),
            (11, Value::Fixed64(time)) => record.observed = time,
            (12, Value::Bytes(text)) => record.event_name = text.into(),
            _ => {}
        }
    }
    Ok(())
}

/// Why a record ends early.
enum Stopped {
    Broken(DecodeError),
    Refused(Refused),
}

impl From<crate::protocol::DecodeError> for Stopped {
    fn from(error: crate::protocol::DecodeError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<Stopped> for DecodeError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Broken(error) => error,
            Stopped::Refused(refused) => Self::TooLarge(refused.message),
        }
    }
}

/// Reads values, and counts them.
#[derive(Default)]
struct Values(usize);

impl Values {
    fn attribute<'a>(&mut self, bytes: &'a [u8]) -> Result<Attribute<'a>, Stopped> {
        self.nested_attribute(bytes, MAX_NESTING)
    }

    fn nested_attribute<'a>(
        &mut self,
        bytes: &'a [u8],
        depth: usize,
    ) -> Result<Attribute<'a>, Stopped> {
        let (mut key, mut value) = (&b""[..], Any::None);
        let mut message = Fields::new(bytes);
        self.count()?;
        while let Some(field) = message.field()? {
            match field {
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, Value::Bytes(bytes)) => value = self.any(bytes, depth)?,
                _ => {}
            }
        }
        Ok((key.into(), value))
    }

    fn any<'a>(&mut self, bytes: &'a [u8], depth: usize) -> Result<Any<'a>, Stopped> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Stopped::Broken(
                crate::protocol::DecodeError::too_deep().into(),
            ));
        };
        self.count()?;
        let mut any = Any::None;
        let mut message = Fields::new(bytes);
        while let Some(field) = message.field()? {
            any = match field {
                (1, Value::Bytes(text)) => Any::Text(text.into()),
                (2, Value::Varint(value)) => Any::Bool(value != 0),
                (3, Value::Varint(value)) => Any::Int(signed(value)),
                (4, Value::Fixed64(bits)) => Any::Double(f64::from_bits(bits)),
                (5, Value::Bytes(bytes)) => {
                    let mut values = Vec::new();
                    let mut message = Fields::new(bytes);
                    while let Some(field) = message.field()? {
                        if let (1, Value::Bytes(bytes)) = field {
                            values.push(self.any(bytes, depth)?);
                        }
                    }
                    Any::Array(values)
                }
                (6, Value::Bytes(bytes)) => {
                    let mut values = Vec::new();
                    let mut message = Fields::new(bytes);
                    while let Some(field) = message.field()? {
                        if let (1, Value::Bytes(bytes)) = field {
                            values.push(self.nested_attribute(bytes, depth)?);
                        }
                    }
                    Any::Map(values)
                }
                (7, Value::Bytes(bytes)) => Any::Bytes(bytes.into()),
                _ => any,
            };
        }
        Ok(any)
    }

    fn count(&mut self) -> Result<(), Stopped> {
        self.0 += 1;
        if self.0 > MAX_VALUES {
            return Err(Stopped::Refused(Refused::too_many_values()));
        }
        Ok(())
    }
}
