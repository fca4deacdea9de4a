variable "cluster_name" {
  description = "Cluster that the nodes join, and prefix of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.cluster_name))
    error_message = "cluster_name must be 2 to 20 lower-case letters, digits and '-', a letter first: bucket and role names are made of it."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version of the nodes: the control plane's."
  type        = string

  validation {
    condition     = can(regex("^1\\.(29|[3-9][0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version must be 1.29 or newer, as 1.NN: older ones lack what the manifests use."
  }
}

variable "subnet_ids" {
  description = "Private subnets for the nodes."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids must hold one subnet at least."
  }
}

variable "pools" {
  description = "Pools of nodes by name: instance types (several for spot, all of one size), GPUs or not, spot or not, least and most nodes, disk."
  type = map(object({
    instance_types = list(string)
    gpu            = optional(bool, false)
    spot           = optional(bool, false)
    min            = optional(number, 0)
    max            = number
    disk_gib       = optional(number, 100)
  }))

  validation {
    condition     = alltrue([for pool in keys(var.pools) : can(regex("^[a-z][a-z0-9-]{1,19}$", pool))])
    error_message = "pools: names must be 2 to 20 lower-case letters, digits and '-': they become labels and parts of names."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.min >= 0 && pool.max >= 1 && pool.min <= pool.max])
    error_message = "pools: wanted 0 <= min <= max, and max >= 1."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.min == 0 if pool.gpu || pool.spot])
    error_message = "pools: GPU and spot pools scale from none (min = 0): an idle GPU costs as much as a busy one."
  }

  validation {
    condition     = anytrue([for pool in values(var.pools) : pool.min >= 1 && !pool.gpu && !pool.spot])
    error_message = "pools: one pool of on-demand nodes without GPUs needs min >= 1: DNS, the autoscaler and the controllers run there."
  }

  validation {
    condition     = alltrue(flatten([for pool in values(var.pools) : length(pool.instance_types) > 0 && alltrue([for type in pool.instance_types : pool.gpu == can(regex("^(g|p)[0-9]", type))])]))
    error_message = "pools: a pool has GPU instance types (g…, p…) exactly if gpu = true, and one type at least."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.disk_gib >= 50])
    error_message = "pools: disk_gib must be 50 or more: images with CUDA and decoded cache shards lie there."
  }
}

variable "tags" {
  description = "Tags of instances and volumes, for the bill: the provider's default tags do not reach them."
  type        = map(string)
  default     = {}
}
