//! `bench`: how fast a tower runs on this machine with its input already in memory, against the processor's peak
//! measured in the same run. Reading and decoding pictures is no part of it.

use crate::{Error, Model};
use openvision_kernels::peak;
use openvision_model::config::TextPooling;
use openvision_model::tower::Until;
use openvision_model::{Arithmetic, Encoder, Fill, Pass, Profile};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Rounds of measuring the peak before a row and after it, and the length of each.
const PEAK_ROUNDS: usize = 10;
const PEAK_LENGTH: Duration = Duration::from_millis(30);

/// Passes that a row has at least, however long one takes.
const FEWEST_PASSES: usize = 3;

/// Which tower is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tower {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}

/// Speed of one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The model's name.
    pub model: String,
    /// Arithmetic, as it was asked for.
    pub precision: String,
    /// The tower.
    pub tower: Tower,
    /// Items of one pass.
    pub batch: usize,
    /// Passes measured.
    pub passes: usize,
    /// Items a second in the median pass.
    pub median_per_second: f64,
    /// Items a second in the fastest pass.
    pub best_per_second: f64,
    /// 10⁹ floating-point operations a second in the median pass (2 a multiply-add; products and attention only).
    pub gflops: f64,
    /// The same in the fastest pass.
    pub best_gflops: f64,
    /// `gflops` as a share of `peak_gflops`.
    pub peak_share: f64,
    /// The same for the fastest pass.
    pub best_peak_share: f64,
    /// The most that all threads reached with multiply-adds alone, before and after this row was measured.
    pub peak_gflops: f64,
    /// The instruction set.
    pub instruction_set: &'static str,
    /// Threads.
    pub threads: usize,
    /// Bytes of the tower's packed weights.
    pub weight_bytes: usize,
    /// Most memory that the process has had since its start or [`forget_peak_memory`], in bytes, where the system says
    /// it.
    pub peak_memory: Option<u64>,
    /// Where the time goes, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<OperationRow>>,
}

/// Share of one kind of operation in the time of all threads, from passes of their own: taking the time of each
/// operation costs a little, which the figures of the row are free of.
#[derive(Clone, Debug, Serialize)]
pub struct OperationRow {
    /// What it is; `outside operations` is what is in none: starting threads and joining them, copying inputs.
    pub operation: &'static str,
    /// Share of the time of all threads.
    pub share: f64,
    /// Milliseconds of an item, of all threads together.
    pub milliseconds: f64,
    /// 10⁹ floating-point operations a second of one thread while in it; nothing where there is no such work.
    pub gflops: Option<f64>,
    /// `gflops` as a share of one thread's part of the peak.
    pub peak_share: Option<f64>,
}

/// What a bench measures, and the most memory it took so far.
#[derive(Clone, Debug, Serialize)]
pub struct About<'a> {
    /// The model's name.
    pub model: Option<&'a str>,
    /// The tower.
    pub tower: Tower,
    /// Arithmetic, as it was asked for.
    pub precision: &'a str,
    /// The instruction set.
    pub instruction_set: &'static str,
    /// Threads.
    pub threads: usize,
    /// Floating-point operations of one item.
    pub flops: u64,
    /// As in a [`Row`].
    pub peak_memory: Option<u64>,
}

/// How much a measurement tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Speed.
    Whole,
    /// Speed, then the time of every operation.
    ByOperation,
}

/// One tower with inputs in memory.
pub struct Bench<'a> {
    model: &'a Model,
    tower: Tower,
    precision: String,
    inputs: Inputs,
}

/// Inputs, used in turn by the items of a pass.
enum Inputs {
    /// Pictures as planar pixels, one after the other.
    Pixels(Vec<f32>),
    /// Rows of token ids with the position that pooling takes.
    Ids(Vec<(Vec<u32>, usize)>),
}

impl<'a> Bench<'a> {
    /// A bench of one tower on an input of its own making; `precision` is what rows call the model's arithmetic.
    ///
    /// # Errors
    /// The tower is not loaded.
    pub fn new(model: &'a Model, tower: Tower, precision: &str) -> Result<Self, Error> {
        let inputs = match tower {
            Tower::Image => {
                model.image()?;
                let values = 3 * model.config.image.height * model.config.image.width;
                // No picture, but as spread as normalised pixels: the fractional parts of multiples of a surd.
                Inputs::Pixels((0..values).map(|i| (i as f32 * 0.618_034).fract() * 4.0 - 2.0).collect())
            }
            Tower::Text => {
                model.text()?;
                // No text, but as many ids as fit, the end of a text last.
                let text = model.config.text()?;
                let mut ids: Vec<u32> = (0..text.context).map(|i| (i % text.vocabulary) as u32).collect();
                if let (TextPooling::FirstOf(end), Some(last)) = (text.pooling, ids.last_mut()) {
                    *last = end;
                }
                let mark = model.mark(&ids)?;
                Inputs::Ids(vec![(ids, mark)])
            }
        };
        Ok(Self { model, tower, precision: precision.to_owned(), inputs })
    }

    /// Takes other inputs: little-endian f32 pixels [pictures, 3, height, width], or u32 token ids [texts, context].
    ///
    /// # Errors
    /// The bytes are no whole number of inputs, or ids do not fit the model.
    pub fn set_inputs(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let length = match self.tower {
            Tower::Image => 3 * self.model.config.image.height * self.model.config.image.width,
            Tower::Text => self.model.config.text()?.context,
        };
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || words.is_empty() || !words.len().is_multiple_of(length) {
            let problem = format!("{} bytes are no whole number of inputs of {length} 4-byte values", bytes.len());
            return Err(Error::Usage(problem));
        }
        self.inputs = match self.tower {
            Tower::Image => Inputs::Pixels(words.iter().map(|word| f32::from_le_bytes(*word)).collect()),
            Tower::Text => {
                let ids: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
                let rows = ids.chunks(length).map(|ids| Ok((ids.to_vec(), self.model.mark(ids)?)));
                Inputs::Ids(rows.collect::<Result<_, Error>>()?)
            }
        };
        Ok(words.len() / length)
    }

    /// What is measured.
    pub fn about(&self) -> About<'_> {
        About {
            model: self.model.config.name.as_deref(),
            tower: self.tower,
            precision: &self.precision,
            instruction_set: self.model.isa().name(),
            threads: self.model.pool().threads(),
            flops: self.flops(),
            peak_memory: peak_memory(),
        }
    }

    /// Floating-point operations of one item (2 a multiply-add; products and attention only).
    fn flops(&self) -> u64 {
        let flops = self.model.config.flops();
        match self.tower {
            Tower::Image => flops.image,
            Tower::Text => flops.text,
        }
    }

    /// 10⁹ multiply-adds a second, each counted as two, that all threads reach when they do nothing else.
    pub fn peak(&self) -> f64 {
        let (isa, pool) = (self.model.isa(), self.model.pool());
        let peak = match self.model.arithmetic() {
            Arithmetic::Int8 => peak::byte_ops_per_second(isa.dot_unit(), pool, PEAK_ROUNDS, PEAK_LENGTH),
            _ => peak::flops_per_second(isa, pool, PEAK_ROUNDS, PEAK_LENGTH),
        };
        peak / 1e9
    }

    /// Raw embeddings of the inputs, one after the other.
    ///
    /// # Errors
    /// The tower is not loaded.
    pub fn embed(&self) -> Result<Vec<f32>, Error> {
        Ok(match &self.inputs {
            Inputs::Pixels(pixels) => self.model.encode_pixels(pixels)?,
            Inputs::Ids(rows) => self.model.encode_ids(&rows.iter().map(|(ids, _)| ids.clone()).collect::<Vec<_>>())?,
        })
    }

    /// Seconds of one pass over `batch` items.
    ///
    /// # Errors
    /// The tower is not loaded.
    pub fn pass(&self, batch: usize) -> Result<f64, Error> {
        self.run(batch, &|encoder, pass| encoder.run(self.model.pool(), pass))
    }

    /// Runs one pass over `batch` items by `encode`; gives its seconds.
    fn run(&self, batch: usize, encode: &dyn Fn(&Encoder, &Pass)) -> Result<f64, Error> {
        let pass = Pass {
            count: batch,
            until: Until::Embedding,
            fill: &|index, item| {
                match &self.inputs {
                    Inputs::Pixels(pixels) => {
                        let length = item.pixels.len();
                        let at = index % (pixels.len() / length) * length;
                        item.pixels.copy_from_slice(&pixels[at..at + length]);
                    }
                    Inputs::Ids(rows) => {
                        // Equal texts side by side: passes take texts of about one length, as `encode_texts` does.
                        let (ids, mark) = &rows[index * rows.len() / batch];
                        item.ids.copy_from_slice(ids);
                        *item.mark = *mark;
                    }
                }
                Fill::Ready
            },
            sink: &|_, embedding| {
                std::hint::black_box(embedding);
            },
            observe: None,
        };
        let encoder = self.encoder()?;
        let started = Instant::now();
        encode(encoder, &pass);
        Ok(started.elapsed().as_secs_f64())
    }

    fn encoder(&self) -> Result<&Encoder, Error> {
        Ok(match self.tower {
            Tower::Image => self.model.image()?,
            Tower::Text => self.model.text()?,
        })
    }

    /// Where the time of a pass over `batch` items goes, measured for about `length`; `peak` is that of all threads.
    fn operations(&self, batch: usize, length: Duration, peak: f64) -> Result<Vec<OperationRow>, Error> {
        let (profile, pool) = (Profile::default(), self.model.pool());
        let (started, mut passes, mut seconds) = (Instant::now(), 0, 0.0);
        while passes < FEWEST_PASSES || started.elapsed() < length {
            seconds += self.run(batch, &|encoder, pass| encoder.run_timed(pool, pass, &profile))?;
            passes += 1;
        }
        let threads = pool.threads() as f64;
        let (all, items) = (seconds * threads, (passes * batch) as f64);
        let mut rest = all;
        let mut rows = Vec::new();
        for one in profile.operations(self.encoder()?) {
            let seconds = one.time.as_secs_f64();
            rest -= seconds;
            let gflops = (one.flops > 0 && seconds > 0.0).then(|| one.flops as f64 * items / seconds / 1e9);
            rows.push(OperationRow {
                operation: one.name,
                share: seconds / all,
                milliseconds: 1e3 * seconds / items,
                gflops,
                peak_share: gflops.map(|gflops| gflops / (peak / threads)),
            });
        }
        let rest = rest.max(0.0);
        rows.push(OperationRow {
            operation: "outside operations",
            share: rest / all,
            milliseconds: 1e3 * rest / items,
            gflops: None,
            peak_share: None,
        });
        Ok(rows)
    }

    /// Measures one batch size for about `length`, after one pass to warm up.
    ///
    /// # Errors
    /// The tower is not loaded, or the batch is empty.
    pub fn measure(&self, batch: usize, length: Duration, detail: Detail) -> Result<Row, Error> {
        if batch == 0 {
            return Err(Error::Usage("--batch 0: a batch has at least one item".into()));
        }
        let (model, pool) = (self.model, self.model.pool());
        let before = self.peak();
        self.pass(batch)?;
        let started = Instant::now();
        let mut seconds = Vec::new();
        while seconds.len() < FEWEST_PASSES || started.elapsed() < length {
            seconds.push(self.pass(batch)?);
        }
        // Twice, because other programs may have had the processors at one of the times.
        let peak = before.max(self.peak());
        seconds.sort_by(f64::total_cmp);
        let (median, best) = (seconds[seconds.len() / 2], seconds[0]);
        let operations = match detail {
            Detail::Whole => None,
            Detail::ByOperation => Some(self.operations(batch, length, peak)?),
        };
        let gflop = (self.flops() * batch as u64) as f64 / 1e9;
        Ok(Row {
            model: model.config.name.clone().unwrap_or_else(|| "unnamed".into()),
            precision: self.precision.clone(),
            tower: self.tower,
            batch,
            passes: seconds.len(),
            median_per_second: batch as f64 / median,
            best_per_second: batch as f64 / best,
            gflops: gflop / median,
            best_gflops: gflop / best,
            peak_share: gflop / median / peak,
            best_peak_share: gflop / best / peak,
            peak_gflops: peak,
            instruction_set: model.isa().name(),
            threads: pool.threads(),
            weight_bytes: self.encoder()?.weight_bytes(),
            peak_memory: peak_memory(),
            operations,
        })
    }
}

/// Most memory that this process has had, in bytes, where the system says it in a file.
pub fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Lets [`peak_memory`] count from now on, where the system can do that.
pub fn forget_peak_memory() {
    // Where this fails, the peak of one model is that of all before it too: a figure that is too high, never too low.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
