//! How much one run of a template may do.
//!
//! A template is a program from a query: it may loop and call itself. Each step and each byte
//! that a function reads is counted, so that a line costs bounded time and memory whatever the
//! template does.

/// Terms evaluated and turns of loops.
const MAX_STEPS: u32 = 200_000;
/// Bytes that functions may read and write, all together.
const MAX_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub struct Budget {
    steps: u32,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: MAX_STEPS,
            bytes: MAX_BYTES,
        }
    }
}

impl Budget {
    pub fn steps(&mut self, count: u32) -> Result<(), String> {
        match self.steps.checked_sub(count) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(format!("more than {MAX_STEPS} steps for one line"))
            }
        }
    }

    pub fn bytes(&mut self, count: usize) -> Result<(), String> {
        match self.bytes.checked_sub(count) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => {
                self.bytes = 0;
                Err(format!(
                    "functions work on more than {MAX_BYTES} bytes for one line"
                ))
            }
        }
    }
}
