output "buckets" {
  description = "Names of the buckets: data, workspace, models."
  value       = { data = module.data.name, workspace = module.workspace.name, models = module.models.name }
}

output "bucket_arns" {
  description = "ARNs of the buckets."
  value       = { for bucket in ["data", "workspace", "models"] : bucket => local.arns[bucket] }
}

output "key_arns" {
  description = "KMS keys of the buckets; data shares the workspace's."
  value       = { workspace = module.workspace_key.arn, models = module.models_key.arn }
}

output "image_urls" {
  description = "URLs of the image repositories by name."
  value       = { for image, repository in aws_ecr_repository.this : image => repository.repository_url }
}

output "bucket_policies" {
  description = "Bucket policies as JSON, for review and for the tests that evaluate them."
  value       = { data = module.data.policy, workspace = module.workspace.policy, models = module.models.policy }
}
