//! TEMPORARY
use crate::model::trace::Span;
#[derive(Clone, Debug, Default)]
pub struct BlockMeta { pub number: u32, pub spans: u32, pub raw_bytes: u64, pub stored_bytes: u32, pub min_start: i64, pub max_start: i64 }
impl BlockMeta { pub fn encode(&self) -> Vec<u8> { Vec::new() } pub fn decode(_: u32, _: &[u8]) -> Result<Self, String> { Err("x".into()) } pub fn memory(&self) -> usize { 64 } }
#[derive(Default)]
pub struct SpanBlockBuilder { spans: Vec<Span> }
pub struct Sealed { pub meta: BlockMeta, pub bytes: Vec<u8>, pub filter: Vec<u8>, pub words: String, pub trace_ids: Vec<u128>, pub operations: Vec<Vec<u8>> }
impl SpanBlockBuilder {
    pub fn append(&mut self, s: &Span) { self.spans.push(s.clone()) }
    pub fn raw_bytes(&self) -> usize { self.spans.len() * 300 }
    pub fn memory(&self) -> usize { self.raw_bytes() }
    pub fn spans(&self) -> Vec<Span> { self.spans.clone() }
    pub fn seal(&self, _: &mut crate::store::index::Analyzer) -> Result<Sealed, String> { Err("x".into()) }
}
pub struct SpanBlock;
impl SpanBlock { pub fn decode(_: &[u8]) -> Result<Self, String> { Err("x".into()) } pub fn words(&self) -> String { String::new() } }
