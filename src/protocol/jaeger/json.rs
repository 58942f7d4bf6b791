//! Traces as the JSON that Jaeger's UI and Grafana read, written in one pass; span by span
//! where a trace is too large to be in memory.
//!
//! Times and durations are whole microseconds. Integers keep all digits. A float that
//! JSON has no number for (NaN, infinities) is written as text, where Jaeger fails.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::model::trace::{Operation, Process, RefType, Span, Tag, TagValue, Trace, TraceId};

/// How the JSON is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    #[default]
    Compact,
    /// Indented by four spaces, for `prettyPrint`.
    Pretty,
}

/// One entry of an envelope's `errors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorEntry {
    /// An HTTP status; none inside an answer that is no error.
    pub code: Option<u16>,
    pub message: String,
    pub trace_id: Option<String>,
}

/// The envelope around traces.
pub fn traces(traces: &[Trace], errors: &[ErrorEntry], layout: Layout) -> String {
    let mut writer = TracesWriter::new(layout);
    for trace in traces {
        // The id of the first span is the trace's.
        let id = trace.spans.first().map_or(trace.id, |span| span.trace_id);
        writer.begin_trace(id);
        trace.spans.iter().for_each(|span| writer.span(span));
        writer.end_trace(&trace.warnings);
    }
    writer.finish(errors)
}

/// The envelope around traces as it is written: `begin_trace`, `span`…, `end_trace`, again and
/// again, then `finish`. What is written so far can be taken at any time.
pub struct TracesWriter {
    out: JsonWriter,
    processes: Processes,
}

impl TracesWriter {
    pub fn new(layout: Layout) -> Self {
        let mut out = JsonWriter::new(layout);
        out.open('{');
        out.key("data");
        out.open('[');
        Self {
            out,
            processes: Processes::default(),
        }
    }

    pub fn begin_trace(&mut self, id: TraceId) {
        self.out.element();
        self.out.open('{');
        self.out.key("traceID");
        self.out.display(id);
        self.out.key("spans");
        self.out.open('[');
    }

    pub fn span(&mut self, span: &Span) {
        self.out.element();
        write_span(&mut self.out, span, self.processes.index(&span.process));
    }

    pub fn end_trace(&mut self, warnings: &[String]) {
        let Self { out, processes } = self;
        out.close(']');
        out.key("processes");
        out.object(|out| {
            for (index, process) in processes.known.iter().enumerate() {
                out.key_of(|text| {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "p{}", index + 1);
                });
                out.object(|out| {
                    out.key("serviceName");
                    out.string(&process.service);
                    out.key("tags");
                    write_tags(out, &process.tags);
                });
            }
        });
        out.key("warnings");
        write_warnings(out, warnings);
        out.close('}');
        *processes = Processes::default();
    }

    /// Bytes written and not taken.
    pub fn len(&self) -> usize {
        self.out.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.text.is_empty()
    }

    /// Those of the trace that is being written, which are kept until its end.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// What was written since the last call.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.out.text)
    }

    /// The rest.
    pub fn finish(mut self, errors: &[ErrorEntry]) -> String {
        self.out.close(']');
        envelope_end(&mut self.out, 0, errors);
        self.out.close('}');
        self.out.text
    }
}

/// The envelope around names: services, or the operations of one.
pub fn names<S: AsRef<str>>(names: &[S], layout: Layout) -> String {
    let mut out = JsonWriter::new(layout);
    envelope(&mut out, names.len(), &[], |out| {
        out.array(|out| {
            for name in names {
                out.element();
                out.string(name.as_ref());
            }
        });
    });
    out.text
}

/// The envelope around operations with their kinds.
pub fn operations(operations: &[Operation], layout: Layout) -> String {
    let mut out = JsonWriter::new(layout);
    envelope(&mut out, operations.len(), &[], |out| {
        out.array(|out| {
            for operation in operations {
                out.element();
                out.object(|out| {
                    out.key("name");
                    out.string(&operation.name);
                    out.key("spanKind");
                    out.string(&operation.kind);
                });
            }
        });
    });
    out.text
}

/// The envelope of an answer that says no more than that it was done.
pub fn archived(layout: Layout) -> String {
    let mut out = JsonWriter::new(layout);
    out.object(|out| {
        out.key("data");
        out.array(|_| {});
        for key in ["total", "limit", "offset"] {
            out.key(key);
            out.number(0);
        }
        out.key("errors");
        out.array(|_| {});
    });
    out.text
}

/// The envelope of an answer that is an error, with the newline that follows it.
pub fn error(status: u16, message: &str, layout: Layout) -> String {
    let mut out = JsonWriter::new(layout);
    let entry = ErrorEntry {
        code: Some(status),
        message: message.into(),
        trace_id: None,
    };
    envelope(&mut out, 0, &[entry], |out| out.raw("null"));
    out.text.push('\n');
    out.text
}

fn envelope(
    out: &mut JsonWriter,
    total: usize,
    errors: &[ErrorEntry],
    data: impl FnOnce(&mut JsonWriter),
) {
    out.object(|out| {
        out.key("data");
        data(out);
        envelope_end(out, total, errors);
    });
}

/// What follows the data.
fn envelope_end(out: &mut JsonWriter, total: usize, errors: &[ErrorEntry]) {
    out.key("total");
    out.number(total);
    out.key("limit");
    out.number(0);
    out.key("offset");
    out.number(0);
    out.key("errors");
    if errors.is_empty() {
        out.raw("null");
        return;
    }
    out.array(|out| {
        for error in errors {
            out.element();
            out.object(|out| {
                if let Some(code) = error.code {
                    out.key("code");
                    out.number(code);
                }
                out.key("msg");
                out.string(&error.message);
                if let Some(trace_id) = &error.trace_id {
                    out.key("traceID");
                    out.string(trace_id);
                }
            });
        }
    });
}

/// Numbers processes in order of first use.
#[derive(Default)]
pub struct Processes {
    known: Vec<Arc<Process>>,
    by_hash: HashMap<u64, Vec<usize>>,
    /// The process looked at last: spans of one batch share theirs, and batches come one after
    /// the other.
    last: Option<(Arc<Process>, usize)>,
    bytes: usize,
}

impl Processes {
    /// Memory that the distinct ones take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The process's index; equal processes share one.
    pub fn index(&mut self, process: &Arc<Process>) -> usize {
        match &self.last {
            Some((last, index)) if Arc::ptr_eq(last, process) => *index,
            _ => {
                let index = self.find(process);
                self.last = Some((process.clone(), index));
                index
            }
        }
    }

    fn find(&mut self, process: &Arc<Process>) -> usize {
        let mut hasher = DefaultHasher::new();
        process.service.hash(&mut hasher);
        for tag in &process.tags {
            tag.key.hash(&mut hasher);
            if let TagValue::String(text) = &tag.value {
                text.hash(&mut hasher);
            }
        }
        let same_hash = self.by_hash.entry(hasher.finish()).or_default();
        for &index in same_hash.iter() {
            if self.known.get(index).is_some_and(|known| known == process) {
                return index;
            }
        }
        let tags = process.tags.iter().map(|tag| match &tag.value {
            TagValue::String(text) => size_of::<Tag>() + tag.key.len() + text.len(),
            TagValue::Binary(bytes) => size_of::<Tag>() + tag.key.len() + bytes.len(),
            _ => size_of::<Tag>() + tag.key.len(),
        });
        self.bytes += 128 + process.service.len() + tags.sum::<usize>();
        self.known.push(process.clone());
        same_hash.push(self.known.len() - 1);
        self.known.len() - 1
    }
}

fn write_span(out: &mut JsonWriter, span: &Span, process: usize) {
    out.object(|out| {
        out.key("traceID");
        out.display(span.trace_id);
        out.key("spanID");
        out.display(span.span_id);
        if span.flags != 0 {
            out.key("flags");
            out.number(span.flags);
        }
        out.key("operationName");
        out.string(&span.operation);
        out.key("references");
        out.array(|out| {
            for reference in &span.references {
                out.element();
                out.object(|out| {
                    out.key("refType");
                    out.string(match reference.kind {
                        RefType::ChildOf => "CHILD_OF",
                        RefType::FollowsFrom => "FOLLOWS_FROM",
                    });
                    out.key("traceID");
                    out.display(reference.trace_id);
                    out.key("spanID");
                    out.display(reference.span_id);
                });
            }
        });
        out.key("startTime");
        out.number(span.start.div_euclid(1_000));
        out.key("duration");
        out.number(span.duration / 1_000);
        out.key("tags");
        write_tags(out, &span.tags);
        out.key("logs");
        out.array(|out| {
            for log in &span.logs {
                out.element();
                out.object(|out| {
                    out.key("timestamp");
                    out.number(log.at.div_euclid(1_000));
                    out.key("fields");
                    write_tags(out, &log.fields);
                });
            }
        });
        out.key("processID");
        // Writing to a String cannot fail.
        let _ = write!(out.text, "\"p{}\"", process + 1);
        out.key("warnings");
        write_warnings(out, &span.warnings);
    });
}

fn write_warnings<S: AsRef<str>>(out: &mut JsonWriter, warnings: &[S]) {
    if warnings.is_empty() {
        out.raw("null");
        return;
    }
    out.array(|out| {
        for warning in warnings {
            out.element();
            out.string(warning.as_ref());
        }
    });
}

fn write_tags(out: &mut JsonWriter, tags: &[Tag]) {
    out.array(|out| {
        for tag in tags {
            out.element();
            out.object(|out| {
                out.key("key");
                out.string(&tag.key);
                out.key("type");
                out.string(match &tag.value {
                    TagValue::String(_) => "string",
                    TagValue::Bool(_) => "bool",
                    TagValue::Int64(_) => "int64",
                    TagValue::Float64(_) => "float64",
                    TagValue::Binary(_) => "binary",
                });
                out.key("value");
                match &tag.value {
                    TagValue::String(text) => out.string(text),
                    TagValue::Bool(value) => out.number(value),
                    TagValue::Int64(value) => out.number(value),
                    TagValue::Float64(value) => out.float(*value),
                    TagValue::Binary(bytes) => {
                        out.text.push('"');
                        STANDARD.encode_string(bytes, &mut out.text);
                        out.text.push('"');
                    }
                }
            });
        }
    });
}

/// JSON as it grows. Keys, elements and closing brackets place commas and line breaks.
struct JsonWriter {
    text: String,
    layout: Layout,
    depth: usize,
    /// Whether nothing stands yet in the innermost object or array.
    empty: bool,
}

impl JsonWriter {
    fn new(layout: Layout) -> Self {
        Self {
            text: String::new(),
            layout,
            depth: 0,
            empty: true,
        }
    }

    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.nested('{', '}', fields);
    }

    fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.nested('[', ']', elements);
    }

    #[inline]
    fn nested(&mut self, open: char, close: char, inside: impl FnOnce(&mut Self)) {
        self.open(open);
        inside(self);
        self.close(close);
    }

    #[inline]
    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.depth += 1;
        self.empty = true;
    }

    #[inline]
    fn close(&mut self, bracket: char) {
        self.depth -= 1;
        if !self.empty {
            self.line();
        }
        self.text.push(bracket);
        // Whatever is around holds this now.
        self.empty = false;
    }

    /// Begins an element of an array.
    fn element(&mut self) {
        if !self.empty {
            self.text.push(',');
        }
        self.empty = false;
        self.line();
    }

    /// Begins a field of an object; `key` needs no escapes.
    fn key(&mut self, key: &str) {
        self.key_of(|text| text.push_str(key));
    }

    fn key_of(&mut self, write: impl FnOnce(&mut String)) {
        self.element();
        self.text.push('"');
        write(&mut self.text);
        self.text.push_str(if self.layout == Layout::Pretty {
            "\": "
        } else {
            "\":"
        });
    }

    fn line(&mut self) {
        if self.layout == Layout::Pretty {
            self.text.push('\n');
            for _ in 0..self.depth {
                self.text.push_str("    ");
            }
        }
    }

    fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn number(&mut self, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// Something whose text needs no escapes, in quotes.
    fn display(&mut self, value: impl std::fmt::Display) {
        let _ = write!(self.text, "\"{value}\"");
    }

    /// As Go writes floats: a whole number without a point, an exponent outside 1e-6..1e21.
    fn float(&mut self, value: f64) {
        if value.is_nan() {
            self.raw("\"NaN\"");
        } else if value.is_infinite() {
            self.raw(if value > 0.0 { "\"+Inf\"" } else { "\"-Inf\"" });
        } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
            let text = format!("{value:e}");
            match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => {
                    let _ = write!(self.text, "{digits}e+{exponent}");
                }
                _ => self.raw(&text),
            }
        } else {
            self.number(value);
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        let mut plain = 0;
        for (index, byte) in text.bytes().enumerate() {
            let escape = match byte {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0..=0x1f => "",
                _ => continue,
            };
            // Escaped bytes are ASCII, so both cuts are between characters.
            self.text
                .push_str(text.get(plain..index).unwrap_or_default());
            if escape.is_empty() {
                let _ = write!(self.text, "\\u{byte:04x}");
            } else {
                self.text.push_str(escape);
            }
            plain = index + 1;
        }
        self.text.push_str(text.get(plain..).unwrap_or_default());
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests;
