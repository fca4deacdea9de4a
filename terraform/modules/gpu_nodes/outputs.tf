output "node_labels" {
  description = "Labels by pool: what a pod's nodeSelector may ask for."
  value       = local.labels
}

output "node_taints" {
  description = "Taints (all NoSchedule) by pool: what a pod must tolerate."
  value       = local.taints
}

output "volumes_key_arn" {
  description = "KMS key for the volumes of claims: `kmsKeyId` of a StorageClass."
  value       = module.key.arn
}
