//! YAML as it is written: text, quoting and places, without any typing.
