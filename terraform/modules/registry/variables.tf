variable "name" {
  description = "Prefix of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and '-', a letter first: bucket and role names are made of it."
  }
}

variable "vpc_id" {
  description = "VPC of the cluster."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets for the database."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must hold subnets of two zones at least: RDS refuses one."
  }
}

variable "cluster_security_group_id" {
  description = "Group of the nodes, which are let in."
  type        = string
}

variable "models_bucket" {
  description = "Name of the bucket that model files go to."
  type        = string
}

variable "postgres_version" {
  description = "Major version of Postgres; minor ones are taken as they come."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["15", "16", "17"], var.postgres_version)
    error_message = "postgres_version must be 15, 16 or 17: a major version alone."
  }
}

variable "instance_class" {
  description = "Size of the database; MLflow's records are small."
  type        = string
  default     = "db.t4g.small"

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.instance_class))
    error_message = "instance_class must be one of RDS, such as db.t4g.small."
  }
}

variable "multi_az" {
  description = "Whether a standby in another zone takes over."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "Days that the database can be put back to any moment of."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be 1 to 35: RDS takes no more, and without backups a mistake is final."
  }
}

variable "deletion_protection" {
  description = "Whether the database refuses to be deleted, and leaves a snapshot once it is."
  type        = bool
  default     = true
}
