# What the k8s overlay needs to know. docs/terraform.md says where each value goes.
output "k8s_overlay" {
  description = "Values for the k8s overlay of this environment."
  value = {
    cluster             = module.cluster.name
    region              = var.region
    namespace           = module.iam.namespace
    workspace_uri       = "s3://${module.storage.buckets.workspace}"
    data_uri            = "s3://${module.storage.buckets.data}"
    mlflow_artifact_uri = module.registry.artifact_root
    mlflow_db_endpoint  = module.registry.endpoint
    mlflow_db_name      = module.registry.database
    mlflow_db_secret    = module.registry.secret_arn
    image_urls          = module.storage.image_urls
    service_accounts    = module.iam.role_arns
    node_labels         = module.gpu_nodes.node_labels
    node_taints         = module.gpu_nodes.node_taints
    volumes_key         = module.gpu_nodes.volumes_key_arn
  }
}

output "policies" {
  description = "IAM policies by service account, and bucket policies by bucket, as JSON: to be read before they are applied."
  value = {
    roles   = module.iam.policies
    buckets = module.storage.bucket_policies
  }
}
