//! Prompt sets for zero-shot classification: templates, class names, and OpenVision's way of joining them.
use serde_json::Value;

use super::unicode::collapse_spaces;

/// Built-in sets: name and file. A set has templates, class names, or both.
const SETS: [(&str, &str); 19] = [
    ("imagenet80", include_str!("../../../../presets/prompts/imagenet80.json")),
    ("openai7", include_str!("../../../../presets/prompts/openai7.json")),
    ("simple", include_str!("../../../../presets/prompts/simple.json")),
    ("imagenet1k", include_str!("../../../../presets/prompts/imagenet1k.json")),
    ("caltech101", include_str!("../../../../presets/prompts/caltech101.json")),
    ("caltech101_openai", include_str!("../../../../presets/prompts/caltech101_openai.json")),
    ("cifar10", include_str!("../../../../presets/prompts/cifar10.json")),
    ("cifar100", include_str!("../../../../presets/prompts/cifar100.json")),
    ("dtd", include_str!("../../../../presets/prompts/dtd.json")),
    ("eurosat", include_str!("../../../../presets/prompts/eurosat.json")),
    ("fer2013", include_str!("../../../../presets/prompts/fer2013.json")),
    ("flowers102", include_str!("../../../../presets/prompts/flowers102.json")),
    ("food101", include_str!("../../../../presets/prompts/food101.json")),
    ("gtsrb", include_str!("../../../../presets/prompts/gtsrb.json")),
    ("mnist", include_str!("../../../../presets/prompts/mnist.json")),
    ("pets", include_str!("../../../../presets/prompts/pets.json")),
    ("stl10", include_str!("../../../../presets/prompts/stl10.json")),
    ("svhn", include_str!("../../../../presets/prompts/svhn.json")),
    ("vtab_caltech101", include_str!("../../../../presets/prompts/vtab_caltech101.json")),
];

/// OpenVision's evaluation templates: `imagenet80` and the bare label, canonicalised.
const OPENVISION: &str = "openvision81";

/// Names that [`templates`] knows.
pub fn template_sets() -> Vec<&'static str> {
    let named = SETS.iter().map(|(name, _)| *name).filter(|name| list(name, "templates").is_some());
    named.chain([OPENVISION]).collect()
}

/// Names that [`class_names`] knows.
pub fn class_name_sets() -> Vec<&'static str> {
    SETS.iter().map(|(name, _)| *name).filter(|name| list(name, "classnames").is_some()).collect()
}

/// The templates of a set; `{c}` is the place of the label.
pub fn templates(name: &str) -> Option<Vec<String>> {
    if name == OPENVISION {
        let mut all: Vec<String> =
            list("imagenet80", "templates")?.iter().map(|template| canonicalize_keeping(template, "{c}")).collect();
        all.push("{c}".to_owned());
        return Some(all);
    }
    list(name, "templates")
}

/// The class names of a data set, in the order of its labels.
pub fn class_names(name: &str) -> Option<Vec<String>> {
    list(name, "classnames")
}

fn list(name: &str, field: &str) -> Option<Vec<String>> {
    let (_, text) = SETS.iter().find(|(known, _)| *known == name)?;
    let file: Value = serde_json::from_str(text).ok()?;
    file.get(field)?.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The label in place of `{c}` (or `{}`, as templates of other programs have it).
pub fn fill(template: &str, label: &str) -> String {
    // One pass, so that a label with braces is not filled again.
    let mut out = String::with_capacity(template.len() + label.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let hole = ["{c}", "{}"].into_iter().find(|hole| rest[at..].starts_with(hole));
        out.push_str(&rest[..at]);
        out.push_str(hole.map_or("{", |_| label));
        rest = &rest[at + hole.map_or(1, str::len)..];
    }
    out.push_str(rest);
    out
}

/// big_vision's `canonicalize_text(text, keep_punctuation_exact_string=keep)`: `_` becomes a space, ASCII punctuation goes
/// except where it spells `keep`, lower case, single spaces.
pub fn canonicalize_keeping(text: &str, keep: &str) -> String {
    let spaced = text.replace('_', " ");
    let strip = |part: &str| part.replace(|c: char| c.is_ascii_punctuation(), "");
    let parts: Vec<String> =
        if keep.is_empty() { vec![strip(&spaced)] } else { spaced.split(keep).map(strip).collect() };
    // Lower-cased part by part: `keep` is not text.
    let lower: Vec<String> = parts.iter().map(|part| part.to_lowercase()).collect();
    collapse_spaces(&lower.join(keep))
}

/// The aliases of a class as OpenVision's evaluation reads its name: canonicalised, split at commas. A name of commas alone
/// has none.
pub fn aliases(class_name: &str) -> Vec<String> {
    let name = canonicalize_keeping(class_name, ",");
    name.split(',').map(str::trim).filter(|alias| !alias.is_empty()).map(str::to_owned).collect()
}

/// All prompts of a class in OpenVision's evaluation: every alias in every template of `openvision81`. The unit text vectors
/// of these are averaged and made a unit vector again.
pub fn openvision_prompts(class_name: &str) -> Vec<String> {
    let templates = templates(OPENVISION).unwrap_or_default();
    let aliases = aliases(class_name);
    aliases.iter().flat_map(|alias| templates.iter().map(move |template| fill(template, alias))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_complete() {
        let counts = [
            ("imagenet1k", 1000),
            ("caltech101", 102),
            ("caltech101_openai", 102),
            ("cifar10", 10),
            ("cifar100", 100),
            ("dtd", 47),
            ("eurosat", 10),
            ("fer2013", 7),
            ("flowers102", 102),
            ("food101", 101),
            ("gtsrb", 43),
            ("mnist", 10),
            ("pets", 37),
            ("stl10", 10),
            ("svhn", 10),
            ("vtab_caltech101", 102),
        ];
        assert_eq!(class_name_sets(), counts.map(|(name, _)| name));
        for (name, count) in counts {
            assert_eq!(class_names(name).unwrap().len(), count, "{name}");
        }
        for (name, count) in [("imagenet80", 80), ("openai7", 7), ("openvision81", 81), ("simple", 1), ("cifar10", 18)]
        {
            assert_eq!(templates(name).unwrap().len(), count, "{name}");
        }
        assert_eq!(template_sets().len(), 19);
        for name in template_sets() {
            assert!(templates(name).unwrap().iter().all(|template| template.contains("{c}")), "{name}");
        }
        assert!(templates("nothing").is_none() && class_names("simple").is_none());
    }

    #[test]
    fn openvision_templates_are_canonical() {
        let all = templates("openvision81").unwrap();
        assert_eq!((all[0].as_str(), all[80].as_str()), ("a bad photo of a {c}", "{c}"));
        assert!(all.contains(&"itap of a {c}".to_owned()));
        assert!(all.iter().all(|template| !template.contains(['.', '\'']) && *template == template.to_lowercase()));
    }

    #[test]
    fn filling() {
        for (template, label, to) in [
            ("a photo of a {c}.", "cat", "a photo of a cat."),
            ("{} and {c}", "a {c}", "a {c} and a {c}"),
            ("{x} {", "cat", "{x} {"),
        ] {
            assert_eq!(fill(template, label), to);
        }
    }

    #[test]
    fn canonical_class_names() {
        assert_eq!(canonicalize_keeping("Hello,  World_Foo's {}!", "{}"), "hello world foos {}");
        assert_eq!(canonicalize_keeping("A-b", ""), "ab");
        assert_eq!(aliases("Tench, Tinca_tinca,"), ["tench", "tinca tinca"]);
        assert_eq!(aliases(" , "), [""; 0]);
        assert_eq!(openvision_prompts("cat, Kitty").len(), 162);
        assert_eq!(openvision_prompts("cat, Kitty")[81], "a bad photo of a kitty");
    }
}
