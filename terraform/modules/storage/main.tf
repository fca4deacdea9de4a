# Three buckets that hold what the platform makes, and one for their access logs.
#
#   data       what teams bring: raw examples, given teachers. Read by the cacher alone
#   workspace  artifacts/ work/ leases/ runs/ registry/: the workspace of distill_platform, at the bucket's root
#   models     what was registered behind a passed gate, under object lock (a lock is a whole bucket's)

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  # Names are shared by all of AWS: account and region make them ours.
  names = {
    for bucket in ["data", "workspace", "models", "logs"] :
    bucket => "${var.name}-${bucket}-${data.aws_caller_identity.this.account_id}-${data.aws_region.this.name}"
  }
  arns = { for bucket, name in local.names : bucket => "arn:${data.aws_partition.this.partition}:s3:::${name}" }
}

# Logs are delivered once the log bucket's policy lets them in, and S3 refuses to begin before: hence its policy's `bucket`.
module "data" {
  source = "../bucket"

  name                    = local.names.data
  key_arn                 = module.workspace_key.arn
  logs_bucket             = aws_s3_bucket_policy.logs.bucket
  abort_uploads_days      = var.abort_uploads_days
  noncurrent_version_days = var.noncurrent_version_days
  force_destroy           = var.force_destroy
}

module "workspace" {
  source = "../bucket"

  name                    = local.names.workspace
  key_arn                 = module.workspace_key.arn
  logs_bucket             = aws_s3_bucket_policy.logs.bucket
  policies                = [data.aws_iam_policy_document.workspace.json]
  abort_uploads_days      = var.abort_uploads_days
  noncurrent_version_days = var.noncurrent_version_days
  force_destroy           = var.force_destroy
}

# A registered model cannot be changed or deleted for model_lock.days. In COMPLIANCE mode by nobody, the account's root
# included, and the bucket stays as long; in GOVERNANCE mode by whoever is given s3:BypassGovernanceRetention, and no
# role here is.
module "models" {
  source = "../bucket"

  name                    = local.names.models
  key_arn                 = module.models_key.arn
  logs_bucket             = aws_s3_bucket_policy.logs.bucket
  lock                    = var.model_lock
  abort_uploads_days      = var.abort_uploads_days
  noncurrent_version_days = var.noncurrent_version_days
  force_destroy           = var.force_destroy
}

module "workspace_key" {
  source = "../key"

  name        = "${var.name}/workspace"
  description = "Data and workspace of ${var.name}"
}

module "models_key" {
  source = "../key"

  name        = "${var.name}/models"
  description = "Registered models of ${var.name}"
}
