//! Post-processors of a `tokenizer.json`: the ids around a text.
use super::Problem;
use super::file::{PostProcessorFile, SpecialIds, TemplatePiece};

/// Ids before and after the pieces of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affixes {
    /// Before, such as the start token.
    pub before: Vec<u32>,
    /// After, such as the end token.
    pub after: Vec<u32>,
}

impl Affixes {
    /// `check` tells whether an id can be.
    pub(super) fn new(file: &PostProcessorFile, check: &dyn Fn(u64) -> Option<u32>) -> Result<Self, Problem> {
        let mut affixes = Self::default();
        affixes.wrap(file, check)?;
        Ok(affixes)
    }

    fn wrap(&mut self, file: &PostProcessorFile, check: &dyn Fn(u64) -> Option<u32>) -> Result<(), Problem> {
        let known = |id: u64| check(id).ok_or_else(|| ("post_processor", format!("{id} is not an id")));
        let (before, after) = match file {
            PostProcessorFile::ByteLevel => return Ok(()),
            PostProcessorFile::Sequence { processors } => {
                return processors.iter().try_for_each(|processor| self.wrap(processor, check));
            }
            PostProcessorFile::BertProcessing { sep, cls } | PostProcessorFile::RobertaProcessing { sep, cls } => {
                (vec![known(cls.1)?], vec![known(sep.1)?])
            }
            PostProcessorFile::TemplateProcessing { single, pair, special_tokens } => {
                let find = |name: &str| {
                    let missing = || ("post_processor", format!("special token {name:?} is not defined"));
                    special_tokens.get(name).ok_or_else(missing)
                };
                // A pair is not encoded here, but one that names tokens that do not exist shows a damaged file.
                for piece in pair {
                    if let TemplatePiece::SpecialToken(token) = piece {
                        find(&token.id)?;
                    }
                }
                sides(single, find, known)?
            }
        };
        self.before.splice(0..0, before);
        self.after.extend(after);
        Ok(())
    }
}

fn sides<'a>(
    template: &[TemplatePiece],
    find: impl Fn(&str) -> Result<&'a SpecialIds, Problem>,
    known: impl Fn(u64) -> Result<u32, Problem>,
) -> Result<(Vec<u32>, Vec<u32>), Problem> {
    let (mut before, mut after, mut texts) = (Vec::new(), Vec::new(), 0);
    for piece in template {
        match piece {
            TemplatePiece::SpecialToken(token) => {
                let side = if texts == 0 { &mut before } else { &mut after };
                for &id in &find(&token.id)?.ids {
                    side.push(known(id)?);
                }
            }
            TemplatePiece::Sequence(sequence) if sequence.id == "A" => texts += 1,
            TemplatePiece::Sequence(sequence) => {
                return Err(("post_processor", format!("a single text has no sequence {:?}", sequence.id)));
            }
        }
    }
    match texts {
        1 => Ok((before, after)),
        _ => Err(("post_processor", format!("the text is there {texts} times, not once"))),
    }
}
