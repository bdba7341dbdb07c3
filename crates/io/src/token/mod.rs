//! Text cleaning, vocabularies and the text layouts of the model families.
