"""Where rows come from: places, ranges, and a reader per format of recorded candidates."""
