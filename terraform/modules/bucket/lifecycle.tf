# No rule here expires a current object, and none may: an artifact is referenced by records and logs that S3 knows
# nothing of, so age says nothing about whether it is needed. `distill cache gc` reads the references and deletes.
#
# What it deleted stays as a noncurrent version, and can be had back, until noncurrent_version_days; by default for ever.

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = var.abort_uploads_days
    }

    dynamic "noncurrent_version_expiration" {
      for_each = var.noncurrent_version_days == null ? [] : [var.noncurrent_version_days]

      content {
        noncurrent_days = noncurrent_version_expiration.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}
