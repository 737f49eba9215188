//! Counters, gauges and histograms under fixed names; labels come from configuration or closed lists only.
