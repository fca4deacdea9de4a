output "name" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.id
}

output "policy" {
  description = "The bucket policy as JSON."
  value       = data.aws_iam_policy_document.this.json
}
