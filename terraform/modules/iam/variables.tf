variable "name" {
  description = "Prefix of every role's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and '-', a letter first: bucket and role names are made of it."
  }
}

variable "cluster_name" {
  description = "Cluster whose pods get the roles."
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the service accounts."
  type        = string
  default     = "distill"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace)) && !startswith(var.namespace, "kube-")
    error_message = "namespace must be a Kubernetes name of 1 to 63 lower-case letters, digits and '-', and none of Kubernetes' own (kube-…)."
  }
}

variable "bucket_arns" {
  description = "ARNs of the buckets, from modules/storage."
  type = object({
    data      = string
    workspace = string
    models    = string
  })

  validation {
    condition     = alltrue([for arn in values(var.bucket_arns) : can(regex("^arn:aws[a-z-]*:s3:::[a-z0-9.-]+$", arn))])
    error_message = "bucket_arns must be ARNs of buckets (arn:aws:s3:::<name>), without a path or a wildcard."
  }

  validation {
    condition     = length(distinct(values(var.bucket_arns))) == 3
    error_message = "bucket_arns must name three buckets: object lock is a whole bucket's, and raw data is not for every role."
  }
}

variable "key_arns" {
  description = "KMS keys of the buckets, from modules/storage; data and workspace share one."
  type = object({
    workspace = string
    models    = string
  })
}

variable "database_secret_arn" {
  description = "Secret with MLflow's database password, from modules/registry."
  type        = string
}

variable "database_key_arn" {
  description = "KMS key of that secret."
  type        = string
}
