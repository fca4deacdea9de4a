output "role_arns" {
  description = "Roles by service account."
  value       = { for role, made in aws_iam_role.this : "distill-${role}" => made.arn }
}

output "namespace" {
  description = "Namespace of the service accounts."
  value       = var.namespace
}

output "policies" {
  description = "Policies as JSON by service account, for review and for the tests that evaluate them."
  value       = { for role, document in local.documents : "distill-${role}" => document }
}
