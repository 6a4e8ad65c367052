"""Published benchmarks as records: their parquet files, read as they are downloaded."""
