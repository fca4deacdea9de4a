variable "name" {
  description = "Name of the bucket."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 63 lower-case letters, digits and '-'; with dots TLS would not fit it."
  }
}

variable "key_arn" {
  description = "KMS key that its objects are encrypted with."
  type        = string
}

variable "logs_bucket" {
  description = "Bucket that its access logs go to."
  type        = string
}

variable "policies" {
  description = "Statements of the bucket policy, as JSON documents, beside those that refuse anything but TLS 1.2 and newer."
  type        = list(string)
  default     = []
}

variable "lock" {
  description = "Object lock on every object: GOVERNANCE or COMPLIANCE, and for how many days; null for none."
  type = object({
    mode = string
    days = number
  })
  default = null

  validation {
    condition     = var.lock == null ? true : contains(["GOVERNANCE", "COMPLIANCE"], var.lock.mode)
    error_message = "lock.mode must be GOVERNANCE or COMPLIANCE; COMPLIANCE can be undone by nobody."
  }

  validation {
    condition     = var.lock == null ? true : var.lock.days >= 1 && var.lock.days <= 3650
    error_message = "lock.days must be 1 to 3650."
  }
}

variable "abort_uploads_days" {
  description = "Days after which the parts of an upload that did not end are dropped."
  type        = number
  default     = 7

  validation {
    condition     = var.abort_uploads_days >= 2 && var.abort_uploads_days <= 30
    error_message = "abort_uploads_days must be 2 to 30: an upload of a day ago may still be under way, and abandoned parts cost as much as objects."
  }
}

variable "noncurrent_version_days" {
  description = "Days that what was deleted or replaced can be had back; null keeps it for ever, and pays for it."
  type        = number
  default     = null

  validation {
    condition     = var.noncurrent_version_days == null ? true : var.noncurrent_version_days >= 14
    error_message = "noncurrent_version_days must be 14 or more, or null: twice the grace period of `distill cache gc`, to notice a mistake in."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` deletes what it holds. Never in production."
  type        = bool
  default     = false
}
