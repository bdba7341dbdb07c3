//! rten as a peer of speed.py: `peer-rten GRAPHS` runs GRAPHS/BATCH.onnx and answers `input FILE`, `embed BATCH` and
//! `run BATCH PASSES` on standard input with one JSON line each. RTEN_NUM_THREADS says how many threads work.
#![forbid(unsafe_code)]

use rten::{Dimension, Model, ModelOptions, Value};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;
use serde_json::{Value as Json, json};
use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

/// A graph for one batch size, with its input.
struct Prepared {
    batch: usize,
    model: Model,
    input: Input,
}

enum Input {
    Pixels(Tensor<f32>),
    Ids(Tensor<i32>),
}

impl Prepared {
    fn new(graphs: &str, batch: usize, words: &[[u8; 4]]) -> Result<Self, Box<dyn Error>> {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(format!("{graphs}/{batch}.onnx"))?;
        let shape = model.input_shape(0).ok_or("the input has no shape")?;
        let shape: Vec<usize> = shape
            .iter()
            .map(|side| match side {
                Dimension::Fixed(side) => *side,
                Dimension::Symbolic(_) => 0,
            })
            .collect();
        let length = shape.iter().product::<usize>();
        if length == 0 || words.is_empty() {
            return Err("no fixed shape, or no input yet".into());
        }
        let words = words.iter().cycle().take(length);
        let input = if shape.len() == 2 {
            Input::Ids(Tensor::from_data(&shape, words.map(|word| i32::from_le_bytes(*word)).collect::<Vec<_>>()))
        } else {
            Input::Pixels(Tensor::from_data(&shape, words.map(|word| f32::from_le_bytes(*word)).collect::<Vec<_>>()))
        };
        Ok(Self { batch, model, input })
    }

    fn run(&self) -> Result<Value, Box<dyn Error>> {
        let input = match &self.input {
            Input::Pixels(tensor) => tensor.view().into(),
            Input::Ids(tensor) => tensor.view().into(),
        };
        Ok(self.model.run_one(input, None)?)
    }
}

struct Peer {
    graphs: String,
    words: Vec<[u8; 4]>,
    prepared: Option<Prepared>,
}

impl Peer {
    fn prepare(&mut self, batch: usize) -> Result<&Prepared, Box<dyn Error>> {
        if self.prepared.as_ref().is_none_or(|prepared| prepared.batch != batch) {
            self.prepared = None;
            self.prepared = Some(Prepared::new(&self.graphs, batch, &self.words)?);
        }
        Ok(self.prepared.as_ref().expect("just made"))
    }

    fn answer(&mut self, request: &str) -> Result<Json, Box<dyn Error>> {
        let words: Vec<&str> = request.split(' ').collect();
        match words[..] {
            ["input", path] => {
                self.words = std::fs::read(path)?.as_chunks::<4>().0.to_vec();
                self.prepared = None;
                Ok(json!({}))
            }
            ["embed", batch] => {
                let output: Tensor<f32> = self.prepare(batch.parse()?)?.run()?.try_into()?;
                Ok(json!({ "embeddings": output.to_vec() }))
            }
            ["run", batch, passes] => {
                let prepared = self.prepare(batch.parse()?)?;
                let mut seconds = Vec::new();
                for _ in 0..passes.parse::<usize>()? {
                    let started = Instant::now();
                    prepared.run()?;
                    seconds.push(started.elapsed().as_secs_f64());
                }
                Ok(json!({ "seconds": seconds }))
            }
            _ => Err(format!("'{request}' is none of: input FILE, embed BATCH, run BATCH PASSES").into()),
        }
    }
}

fn main() {
    let graphs = std::env::args().nth(1).expect("a folder of graphs");
    let mut peer = Peer { graphs, words: Vec::new(), prepared: None };
    for line in std::io::stdin().lock().lines() {
        let request = line.expect("standard input is text");
        let answer = peer.answer(&request).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
    }
}
