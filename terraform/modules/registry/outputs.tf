output "endpoint" {
  description = "Host and port of the database."
  value       = aws_db_instance.this.endpoint
}

output "database" {
  description = "Name of the database."
  value       = local.database
}

output "secret_arn" {
  description = "Secret (JSON of username and password) that RDS keeps and rotates."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "key_arn" {
  description = "KMS key of database and secret."
  value       = module.key.arn
}

output "artifact_root" {
  description = "MLflow's `--default-artifact-root`."
  value       = "s3://${var.models_bucket}/mlflow"
}
