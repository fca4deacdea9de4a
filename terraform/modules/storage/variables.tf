variable "name" {
  description = "Prefix of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and '-', a letter first: bucket and role names are made of it."
  }
}

variable "collector_role_arn" {
  description = "The role of `distill cache gc`: nobody else deletes artifacts."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[^*]+$", var.collector_role_arn))
    error_message = "collector_role_arn must be one role, arn:aws:iam::<account>:role/<name>, without wildcards."
  }
}

variable "create_only" {
  description = "Keys of the workspace that a PUT must create and may not replace, with `*` for anything."
  type        = list(string)
  default     = ["artifacts/*/record.json", "artifacts/cache/*/manifest.*.json", "registry/*"]

  validation {
    condition     = contains(var.create_only, "artifacts/*/record.json") && contains(var.create_only, "registry/*")
    error_message = "create_only must hold artifacts/*/record.json and registry/*: commits and promotions rest on them."
  }
}

variable "abort_uploads_days" {
  description = "Days after which the parts of an upload that did not end are dropped, 2 to 30."
  type        = number
  default     = 7
}

variable "noncurrent_version_days" {
  description = "Days that what was deleted or replaced can be had back, 14 or more; null keeps it for ever, and pays for it."
  type        = number
  default     = null
}

variable "model_lock" {
  description = "Object lock on registered models: GOVERNANCE or COMPLIANCE, and for how many days."
  type = object({
    mode = string
    days = number
  })
  nullable = false
}

variable "log_retention_days" {
  description = "Days that access logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = var.log_retention_days >= 30
    error_message = "log_retention_days must be 30 or more: what happened is asked for weeks later."
  }
}

variable "images" {
  description = "Image repositories: `<name>/<image>`."
  type        = list(string)
  default     = ["platform", "ray"]

  validation {
    condition     = length(var.images) > 0 && alltrue([for image in var.images : can(regex("^[a-z0-9]+([._-][a-z0-9]+)*$", image))])
    error_message = "images must name one repository at least, in lower-case letters, digits, '.', '_' and '-'."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` deletes what the buckets and repositories hold. Never in production."
  type        = bool
  default     = false
}
